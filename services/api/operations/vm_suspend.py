"""VM messages that save a VM's memory. The saving itself is not built yet: where it would go is looked for already."""

from __future__ import annotations

from services.api.allowed import CHECKS
from services.api.call import Call
from services.api.decisions import features, suspend_images
from services.api.decisions.rows import existing
from services.api.operation import Lock, operation
from services.api.operations.vm_snapshots import take
from shared.errors import ApiError


@operation("VM.suspend", built=False)
def suspend(call: Call, vm: str) -> None:
    refusal = CHECKS["VM"](call.store, vm, "suspend")
    if refusal is not None:
        raise refusal
    suspend_images.sr_for(call.store, vm)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VM.checkpoint", Lock("VM", "checkpoint"))
async def checkpoint(call: Call, vm: str, new_name: str) -> str:
    """A snapshot with the memory of a VM that runs or is suspended; that of a paused one is left out."""
    features.require(call.store, "checkpoint", "Checkpoint")
    state = call.store.get("VM", vm, "power_state")
    if state == "Running":
        suspend_images.sr_for(call.store, vm)
    if state != "Paused":
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} with the VM's memory")
    return await take(call, vm, new_name, "VM_CHECKPOINTED")


@operation("VM.csvm", built=False)
def csvm(call: Call, vm: str) -> str:
    """A clone of a suspended VM, suspended as well."""
    existing(call.store, "VDI", existing(call.store, "VM", vm)["suspend_VDI"])
    refusal = CHECKS["VM"](call.store, vm, "csvm")
    if refusal is not None:
        raise refusal
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
