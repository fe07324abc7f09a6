"""What a driver is told and what it answers: one XML-RPC call as its argument, one response on its output."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from xml.parsers.expat import ExpatError

from services.storage.plugins.errors import plugin_failed, volume_missing
from services.storage.plugins.interface import Unimplemented
from shared.errors import ApiError

NOT_IMPLEMENTED = 38
_PLAIN = {39: "SR_NOT_EMPTY", 24: "VDI_IN_USE", 16: "SR_DEVICE_IN_USE"}
"""Faults that are errors of their own, without parameters."""
_VDI_MISSING = 144


@dataclass(frozen=True, slots=True)
class Call:
    """`members`: what is there besides what every call has; what a command does not get is absent, never nil.

    `sr`: uuid, `location`: of the disk; for errors.
    """

    command: str
    host: str
    device_config: Mapping[str, str]
    args: tuple[str, ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    sr: str = ""
    location: str = ""

    def encoded(self, session: str = "") -> str:
        parameters: dict[str, Any] = {
            "host_ref": self.host,
            "command": self.command,
            "args": list(self.args),
            "device_config": dict(self.device_config),
            **self.members,
        }
        if session:
            parameters["session_ref"] = session
        return xmlrpc.client.dumps((parameters,), self.command)


def result(call: Call, stdout: str, stderr: str) -> Any:
    """What the driver's response holds. Raises `Unimplemented`, and the error that a fault stands for."""
    try:
        (value,), _ = xmlrpc.client.loads(stdout)
    except xmlrpc.client.Fault as fault:
        _raise(call, fault, stderr)
    except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = f"{call.command}: the driver does not answer in XML-RPC: {error or type(error).__name__}"
        raise ApiError("SR_BACKEND_FAILURE", reason, stdout, stderr) from None
    return value


def _raise(call: Call, fault: xmlrpc.client.Fault, stderr: str) -> NoReturn:
    if fault.faultCode == NOT_IMPLEMENTED:
        raise Unimplemented(call.command) from None
    if fault.faultCode in _PLAIN:
        raise ApiError(_PLAIN[fault.faultCode]) from None
    if fault.faultCode == _VDI_MISSING:
        raise volume_missing(call.sr, call.location) from None
    raise ApiError(f"SR_BACKEND_FAILURE_{fault.faultCode}", "", fault.faultString, stderr) from None


def struct(command: str, value: Any, *members: str) -> dict[str, Any]:
    """A result that has to be a struct with those members, which are texts. Raises SR_BACKEND_FAILURE."""
    if not isinstance(value, dict):
        raise plugin_failed(f"{command}: the driver's answer is no struct", repr(value))
    for name in members:
        if not isinstance(value.get(name), str):
            raise plugin_failed(f"{command}: there is no text {name!r} in the driver's answer", repr(value))
    return value


def text(command: str, value: Any) -> str:
    if not isinstance(value, str):
        raise plugin_failed(f"{command}: the driver's answer is no text", repr(value))
    return value
