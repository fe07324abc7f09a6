"""What SMAPIv3 plug-ins share: the exceptions they raise, and how these are reported to the toolstack."""

from __future__ import annotations

import json
import sys

TYPE_CHECKING = False
"""`typing` takes as long to import as all of this, and a plug-in is started for each call."""
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


class XenAPIException(Exception):
    """Reaches the client of the XenAPI as it is: an error code and its parameters."""

    def __init__(self, code: str, params: list[str]) -> None:
        Exception.__init__(self)
        if not isinstance(code, str):
            raise TypeError("string", repr(code))
        if not isinstance(params, list):
            raise TypeError("list", repr(params))
        self.code = code
        self.params = params


class MissingDependency(Exception):
    """Something that the plug-in needs is not installed."""

    def __init__(self, missing: str) -> None:
        self.missing = missing

    def __str__(self) -> str:
        return f"There is a missing dependency: {self.missing} not found"


class Rpc_light_failure(Exception):
    """One of the declared exceptions: its name and what it says."""

    def __init__(self, name: str, args: Sequence[str]) -> None:
        Exception.__init__(self, *args)
        self.name = name

    def failure(self) -> dict[str, Any]:
        """As JSON-RPC has it: a single argument stands for itself."""
        args = list(self.args)
        return {"Status": "Failure", "ErrorDescription": [self.name, args[0] if len(args) == 1 else args]}


class Unimplemented(Rpc_light_failure):
    """The plug-in does not have this function."""

    def __init__(self, arg_0: str) -> None:
        Rpc_light_failure.__init__(self, type(self).__name__, [arg_0])


class InternalError(Rpc_light_failure):
    """Anything that is not foreseen."""

    def __init__(self, error: str) -> None:
        Rpc_light_failure.__init__(self, "Internal_error", [error])


class UnmarshalException(InternalError):
    """What was given or returned is not of the declared type."""

    def __init__(self, thing: object, ty: object, desc: object) -> None:
        InternalError.__init__(self, f"UnmarshalException thing={thing} ty={ty} desc={desc}")


class TypeError(InternalError):  # the name that plug-ins know
    """A value is not of the type it should be."""

    def __init__(self, expected: object, actual: object) -> None:
        InternalError.__init__(self, f"TypeError expected={expected} actual={actual}")


class UnknownMethod(InternalError):
    """The interface has no such function."""

    def __init__(self, name: str) -> None:
        InternalError.__init__(self, f"Unknown method {name}")


def success(result: object) -> dict[str, object]:
    """A result as JSON-RPC has it."""
    return {"Status": "Success", "Value": result}


def handle_exception(e: BaseException, code: str | None = None, params: list[str] | None = None) -> NoReturn:
    """Prints the report that the toolstack reads, and ends the program.

    An exception with `code` and `params` of its own is reported with them, any other by its class and text.
    """
    files: list[str] = []
    lines: list[int] = []
    position = e.__traceback__
    while position is not None:
        files.append(position.tb_frame.f_code.co_filename)
        lines.append(position.tb_lineno)
        position = position.tb_next
    report = {
        "code": getattr(e, "code", code or "SR_BACKEND_FAILURE"),
        "params": getattr(e, "params", params or [type(e).__name__, str(e)]),
        "backtrace": {"error": str(e), "files": files, "lines": lines},
    }
    print(json.dumps(report, default=str))
    sys.exit(1)


def is_long(x: object) -> bool:
    """Whether it is, or reads as, a whole number."""
    try:
        int(x)  # type: ignore[call-overload]
    except ValueError:
        return False
    return True


def __getattr__(name: str) -> Any:
    """`ListAction` is only needed on a command line, and what it needs takes a while to import."""
    if name == "ListAction":
        from .list_action import ListAction

        return ListAction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
