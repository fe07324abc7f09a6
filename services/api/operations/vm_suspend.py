"""VM messages that save a VM's memory. The saving itself is not built yet: where it would go is looked for already."""

from __future__ import annotations

from services.api.allowed import CHECKS
from services.api.call import Call
from services.api.decisions import suspend_images
from services.api.operation import operation
from shared.errors import ApiError


def _save(call: Call, vm: str, op: str) -> None:
    refusal = CHECKS["VM"](call.store, vm, op)
    if refusal is not None:
        raise refusal
    if op == "suspend" or call.store.get("VM", vm, "power_state") == "Running":
        suspend_images.sr_for(call.store, vm)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VM.suspend", built=False)
def suspend(call: Call, vm: str) -> None:
    _save(call, vm, "suspend")


@operation("VM.checkpoint", built=False)
def checkpoint(call: Call, vm: str, new_name: str) -> str:
    _save(call, vm, "checkpoint")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
