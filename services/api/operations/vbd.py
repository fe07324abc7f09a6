"""Messages of class VBD. A running VM's disks are changed by its host; that part is not built yet."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from typing import Any

from services.api import clock, locking
from services.api.allowed import CHECKS, published
from services.api.call import Call, new_ref
from services.api.decisions import vbd_devices, vbd_records
from services.api.decisions.device_metrics import with_metrics
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.operation import operation
from services.api.operations.devices import gone, refuse_while_destroyed
from shared.contracts.db import Change, Update
from shared.errors import ApiError
from shared.store import NULL, Store


@operation("VBD.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    ref, uuid, metrics = new_ref(), str(uuids.uuid4()), str(uuids.uuid4())
    fields = constructor_fields("VBD", args)

    def decision(store: Store) -> list[Change]:
        refuse_while_destroyed(store, fields["VM"])
        row = vbd_records.created(store, ref, uuid, fields)
        changes = with_metrics("VBD", row, metrics, clock.now())
        return [*changes, *published(store, "VBD", ref, changes)]

    await locking.decide(call, "VM", fields["VM"], decision)
    return ref


@operation("VBD.destroy")
async def destroy(call: Call, self: str) -> None:
    await locking.decide(call, "VBD", self, lambda store: gone(store, "VBD", self))


def _check(call: Call, vbd: str, op: str) -> Mapping[str, Any]:
    row = existing(call.store, "VBD", vbd)
    refusal = CHECKS["VBD"](call.store, vbd, op)
    if refusal is not None:
        raise refusal
    return existing(call.store, "VM", row["VM"])


def _only_halted(vm: Mapping[str, Any], message: str) -> None:
    if vm["power_state"] != "Halted":
        raise ApiError("NOT_IMPLEMENTED", f"{message} on a running VM")


@operation("VBD.insert")
async def insert(call: Call, vbd: str, vdi: str) -> None:
    """On a halted VM the record changes; the disk is there at the next start."""
    vm = _check(call, vbd, "insert")
    existing(call.store, "VDI", vdi)
    _only_halted(vm, "VBD.insert")
    await call.transact([Update(cls="VBD", ref=vbd, fields={"VDI": vdi, "empty": False})])


@operation("VBD.eject")
async def eject(call: Call, vbd: str) -> None:
    _only_halted(_check(call, vbd, "eject"), "VBD.eject")
    await call.transact([Update(cls="VBD", ref=vbd, fields={"VDI": NULL, "empty": True})])


@operation("VBD.plug")
async def plug(call: Call, self: str) -> None:
    _only_halted(_check(call, self, "plug"), "VBD.plug")


@operation("VBD.unplug")
async def unplug(call: Call, self: str) -> None:
    _only_halted(_check(call, self, "unplug"), "VBD.unplug")


def _unplug_force(message: str) -> None:
    @operation(message)
    async def unplug_force(call: Call, self: str) -> None:
        _only_halted(_check(call, self, "unplug_force"), message)


for _name in ("VBD.unplug_force", "VBD.unplug_force_no_safety_check"):
    _unplug_force(_name)


def _refused_by_storage(message: str, op: str) -> None:
    @operation(message, built=False)
    def refuse(call: Call, self: str, *token: str) -> Any:
        """Storage does without it: disks are changed while they are in use."""
        _check(call, self, op)
        vdi = existing(call.store, "VBD", self)["VDI"]
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", existing(call.store, "VDI", vdi)["SR"])


_refused_by_storage("VBD.pause", "pause")
_refused_by_storage("VBD.unpause", "unpause")


@operation("VBD.assert_attachable")
def assert_attachable(call: Call, self: str) -> None:
    _check(call, self, "attach")


@operation("VBD.set_mode")
async def set_mode(call: Call, self: str, value: str) -> None:
    row = existing(call.store, "VBD", self)
    vm = existing(call.store, "VM", row["VM"])
    if vm["power_state"] != "Halted":
        raise ApiError("VM_BAD_POWER_STATE", row["VM"], "halted", str(vm["power_state"]).lower())
    if row["type"] == "CD" and value != "RO":
        raise ApiError("VBD_CDS_MUST_BE_READONLY")
    await call.transact([Update(cls="VBD", ref=self, fields={"mode": value})])


@operation("VM.get_allowed_VBD_devices")
def get_allowed_vbd_devices(call: Call, vm: str) -> list[str]:
    return vbd_devices.allowed(call.store, vm)
