"""The module by which plug-ins of a host answer `host.call_plugin`.

XenAPIPlugin.dispatch({"function": function})

A function gets a session of the caller, and the map of its arguments; it returns a text.
"""

from __future__ import annotations

import sys
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import XenAPI


class Failure(Exception):
    """What the caller of the message is told: a code and its parameters."""

    def __init__(self, code: str, params: Sequence[str] = ()) -> None:
        super().__init__(code, params)
        self.code = code
        self.params = list(params)

    def __str__(self) -> str:
        return str([self.code, *self.params])


def success_message(result: Any) -> str:
    return _response({"Status": "Success", "Value": result})


def failure_message(code: Sequence[str]) -> str:
    return _response({"Status": "Failure", "ErrorDescription": list(code)})


def dispatch(fn_table: Mapping[str, Callable[[Any, dict[str, str]], Any]]) -> None:
    """Answers the call in the program's only argument, on its output."""
    if len(sys.argv) != 2:
        sys.exit("a plug-in has one argument: the call")
    call: Any = xmlrpc.client.loads(sys.argv[1])
    (session, arguments), name = call
    if name not in fn_table:
        print(failure_message(["UNKNOWN_XENAPI_PLUGIN_FUNCTION", str(name)]))
        return
    local = XenAPI.xapi_local()
    local._session = str(session)
    try:
        answer = success_message(fn_table[name](local, dict(arguments)))
    except Failure as failure:
        answer = failure_message([failure.code, *failure.params])
    except XenAPI.Failure as failure:
        answer = failure_message(failure.details)
    except Exception as error:  # whatever it is, the caller gets it as this plug-in's failure
        answer = failure_message(["XENAPI_PLUGIN_FAILURE", name, type(error).__name__, str(error)])
    print(answer)


def _response(value: dict[str, Any]) -> str:
    return xmlrpc.client.dumps((value,), "", True, allow_none=True)
