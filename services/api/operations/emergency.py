"""Messages that a host answers when it has lost its coordinator, without looking at the database."""

from __future__ import annotations

from services.api import emergency
from services.api.call import Call
from services.api.operation import operation
from shared.errors import ApiError


@operation("host.is_in_emergency_mode")
def is_in_emergency_mode(call: Call) -> bool:
    return emergency.reason(call.api, call.caller.host) is not None


@operation("host.local_management_reconfigure", built=False)
def local_management_reconfigure(call: Call, interface: str) -> None:
    """Raises NOT_IN_EMERGENCY_MODE: who reaches the database changes the rows."""
    if emergency.reason(call.api, call.caller.host) is None:
        raise ApiError("NOT_IN_EMERGENCY_MODE")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("host.local_assert_healthy")
def local_assert_healthy(call: Call) -> None:
    """Raises why it is in emergency mode."""
    reason = emergency.reason(call.api, call.caller.host)
    if reason is not None:
        raise reason
