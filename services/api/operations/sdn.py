"""Messages about the SDN controller, which speaks to the hosts' Open vSwitches: to none, while hosts use bridges."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions import open_vswitch
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Delete
from shared.errors import ApiError


def _require_vswitch(call: Call) -> None:
    """Raises OPERATION_NOT_ALLOWED."""
    if not open_vswitch.is_used(call.store):
        raise ApiError("OPERATION_NOT_ALLOWED", "host not configured for vswitch operation")


@operation("SDN_controller.introduce", built=False)
def introduce(call: Call, protocol: str, address: str, port: int) -> str:
    _require_vswitch(call)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("SDN_controller.forget")
async def forget(call: Call, self: str) -> None:
    """Bridges need not be told."""
    existing(call.store, "SDN_controller", self)
    if open_vswitch.is_used(call.store):
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
    await call.transact([Delete(cls="SDN_controller", ref=self)])


@operation("pool.set_vswitch_controller", built=False)
def set_vswitch_controller(call: Call, address: str) -> None:
    _require_vswitch(call)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
