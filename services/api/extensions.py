"""Methods that are not in the data model: programs on hosts carry them out, because nobody else knows them
(host-services 4), and one is our own.
"""

from __future__ import annotations

import json
import xmlrpc.client
from collections.abc import Mapping, Sequence
from typing import Any

from services.api import history_questions
from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.host_side.plugins import NoDescription, Unreadable, response
from shared.bus.interface import Bus
from shared.contracts.host import CALL_EXTENSION, HAS_EXTENSION, ExtensionCall, Name
from shared.datamodel.types import RefType
from shared.errors import ApiError, internal_error


async def exists(bus: Bus, host: str, method: str) -> bool:
    """`host`: uuid."""
    return (await bus.call(HAS_EXTENSION, Name(name=method), host=host)).value


async def run(bus: Bus, host: str, method: str, params: Sequence[Any]) -> Any:
    """What the extension answers to a call with these raw values, session first.

    Raises MESSAGE_METHOD_UNKNOWN, EXTENSION_PROTOCOL_FAILURE, and what the extension says.
    """
    if method == history_questions.EXTENSION:
        return await history_questions.extension(bus, list(params[1:]))
    request = xmlrpc.client.dumps(tuple(_on_wire(param) for param in params), method)
    answer = await bus.call(CALL_EXTENSION, ExtensionCall(name=method, request=request), host=host)
    try:
        return response(answer.text)
    except xmlrpc.client.Fault as fault:
        raise ApiError("EXTENSION_PROTOCOL_FAILURE", json.dumps([fault.faultCode, fault.faultString])) from None
    except NoDescription as failure:
        raise ApiError("EXTENSION_PROTOCOL_FAILURE", json.dumps(failure.value, default=str)) from None
    except Unreadable as problem:
        raise internal_error(f"the answer of the extension {method} cannot be read: {problem}") from None


async def forwarded(call: Call, arguments: Sequence[Any]) -> Any:
    """A message that xapi declares and an extension carries out, on the host that it names, else on the coordinator."""
    message = call.message
    named = [value for param, value in zip(message.params, arguments, strict=True) if param.type == RefType("host")]
    host = existing(call.store, "host", named[0])["uuid"] if named else call.api.host_uuid
    return await run(call.api.bus, host, message.wire_name, [call.session, *arguments])


def _on_wire(value: Any) -> Any:
    """As XenAPI has it in XML: integers and dates are text."""
    if isinstance(value, bool | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _on_wire(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_wire(item) for item in value]
    return "" if value is None else str(value)
