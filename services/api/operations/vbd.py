"""Messages of class VBD. The host of a running VM changes its disks; those of a control domain need storage only."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from services.api import clock, locking
from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions import unfinished_moves, vbd_devices, vbd_operations, vbd_records
from services.api.decisions.device_metrics import with_metrics
from services.api.decisions.rows import existing
from services.api.forwarding import vbd_spec
from services.api.implicit import constructor_fields
from services.api.operation import Lock, operation
from services.api.operations import vbd_loopback
from services.api.operations.devices import gone, refuse_while_destroyed
from services.api.operations.vm_lifecycle import do_on_host, host_of
from shared.contracts import vm_disks
from shared.contracts.db import Change, Update
from shared.errors import ApiError
from shared.store import NULL, Store

Row = Mapping[str, Any]


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


def _vm(call: Call, vbd: str) -> tuple[str, Row]:
    ref = str(existing(call.store, "VBD", vbd)["VM"])
    return ref, existing(call.store, "VM", ref)


def _has_drives(call: Call, vm: Row) -> bool:
    """Whether media come and go in drives that stay; elsewhere a CD is a device that comes and goes."""
    return vbd_operations.booted_domain_type(call.store, vm) == "hvm"


# ---- plug and unplug


@operation("VBD.plug", Lock("VBD", "plug"))
async def plug(call: Call, self: str) -> None:
    vm, row = _vm(call, self)
    if row["is_control_domain"]:
        await vbd_loopback.plug(call, self)
        return
    unfinished_moves.require_known(call.store, existing(call.store, "VBD", self)["VDI"])
    request = vm_disks.VbdPlug(vm=row["uuid"], vbd=vbd_spec(call.store, self))
    await do_on_host(call, vm, host_of(call, vm), vm_disks.VBD_PLUG, request)


async def _unplug(call: Call, vbd: str, force: bool = False) -> None:
    vm, row = _vm(call, vbd)
    if row["is_control_domain"]:
        await vbd_loopback.unplug(call, vbd)
        return
    request = vm_disks.VbdUnplug(vm=row["uuid"], vbd=vbd, force=force)
    await do_on_host(call, vm, host_of(call, vm), vm_disks.VBD_UNPLUG, request)


@operation("VBD.unplug", Lock("VBD", "unplug"))
async def unplug(call: Call, self: str) -> None:
    await _unplug(call, self)


@operation("VBD.unplug_force", Lock("VBD", "unplug_force"))
async def unplug_force(call: Call, self: str) -> None:
    await _unplug(call, self, force=True)


@operation("VBD.unplug_force_no_safety_check", Lock("VBD", "unplug_force"))
async def unplug_force_no_safety_check(call: Call, self: str) -> None:
    await _unplug(call, self, force=True)


# ---- media


def _insertable(_: Call, store: Store, arguments: tuple[Any, ...]) -> Sequence[Change]:
    """The new disk's own refusals; the drive's came before."""
    vbd, vdi = arguments
    existing(store, "VDI", vdi)
    refusal = vbd_operations.check(store, vbd, "insert", vdi=vdi)
    if refusal is not None:
        raise refusal
    return ()


@operation("VBD.insert", Lock("VBD", "insert", reserve=_insertable))
async def insert(call: Call, vbd: str, vdi: str) -> None:
    """On a halted VM the record changes; the disk is there at the next start."""
    vm, row = _vm(call, vbd)
    if row["power_state"] != "Halted":
        disk = existing(call.store, "VDI", vdi)
        spec = msgspec.structs.replace(
            vbd_spec(call.store, vbd), sr=call.api.uuid_of("SR", disk["SR"]), location=disk["location"], vdi=vdi
        )
        method = vm_disks.VBD_INSERT if _has_drives(call, row) else vm_disks.VBD_PLUG
        await do_on_host(call, vm, host_of(call, vm), method, vm_disks.VbdPlug(vm=row["uuid"], vbd=spec))
    call.on_success.append(Update(cls="VBD", ref=vbd, fields={"VDI": vdi, "empty": False}))


@operation("VBD.eject", Lock("VBD", "eject"))
async def eject(call: Call, vbd: str) -> None:
    vm, row = _vm(call, vbd)
    if row["power_state"] != "Halted":
        method = vm_disks.VBD_EJECT if _has_drives(call, row) else vm_disks.VBD_UNPLUG
        await do_on_host(call, vm, host_of(call, vm), method, vm_disks.VbdUnplug(vm=row["uuid"], vbd=vbd))
    call.on_success.append(Update(cls="VBD", ref=vbd, fields={"VDI": NULL, "empty": True}))


# ---- others


def _refused_by_storage(message: str, op: str) -> None:
    @operation(message, Lock("VBD", op), built=False)
    def refuse(call: Call, self: str, *token: str) -> Any:
        """Storage does without it: disks are changed while they are in use."""
        vdi = existing(call.store, "VBD", self)["VDI"]
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", existing(call.store, "VDI", vdi)["SR"])


_refused_by_storage("VBD.pause", "pause")
_refused_by_storage("VBD.unpause", "unpause")


@operation("VBD.assert_attachable")
def assert_attachable(call: Call, self: str) -> None:
    refusal = vbd_operations.check(call.store, self, "attach")
    if refusal is not None:
        raise refusal


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
