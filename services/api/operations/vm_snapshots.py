"""VM messages about snapshots: taking one, going back to one."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from services.api import clock
from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions import vm_messages, vm_snapshots
from services.api.decisions.rows import NULL, Record, existing, is_null
from services.api.operation import Lock, operation
from services.api.operations.vdi_copies import clone_disk, snapshot_disk
from services.api.operations.vm_copies import fresh, require_disks, with_allowed
from services.api.subcalls import perform
from shared import alerts
from shared.contracts.db import Change, MapDrop, MapPut, Update
from shared.errors import ApiError
from shared.store import Store


@operation("VM.snapshot", Lock("VM", "snapshot"))
async def snapshot(call: Call, vm: str, new_name: str, ignore_vdis: list[str]) -> str:
    return await take(call, vm, new_name, "VM_SNAPSHOTTED", ignore_vdis)


async def take(call: Call, vm: str, new_name: str, alert: str, ignore_vdis: Container[str] = ()) -> str:
    """Disks of a running VM are taken one after the other, on the host where it writes to them."""
    require_disks(call, vm)
    drives = vm_snapshots.disk_drives(call.store, vm)
    without = {vbd for vbd, vdi in drives.items() if vdi in ignore_vdis}
    taken = {vbd: vdi for vbd, vdi in drives.items() if vbd not in without}
    disks = {vbd: await snapshot_disk(call, vdi) for vbd, vdi in taken.items()}
    ref = new_ref()
    changes = vm_snapshots.taken(call.store, vm, ref, new_name, disks, fresh, clock.now(), without)
    call.on_success += with_allowed(call.store, changes)
    _alert(call, vm, alert, {"name_label": new_name, "uuid": ""})
    return ref


@operation("VM.update_snapshot_metadata")
async def update_snapshot_metadata(
    call: Call, vm: str, snapshot_of: str, snapshot_time: str, transportable_snapshot_id: str
) -> None:
    """A VM that was imported becomes the snapshot that it was."""
    existing(call.store, "VM", vm)
    fields = {
        "is_a_snapshot": True,
        "snapshot_of": snapshot_of,
        "snapshot_time": snapshot_time,
        "transportable_snapshot_id": transportable_snapshot_id,
    }
    changes: list[Change] = [Update(cls="VM", ref=vm, fields=fields)]
    await call.transact([*changes, *published(call.store, "VM", vm, changes)])


def _refuse_revert(store: Store, arguments: tuple[Any, ...]) -> ApiError | None:
    row = existing(store, "VM", arguments[0])
    if row["is_a_snapshot"]:
        return None
    return ApiError("VM_REVERT_FAILED", arguments[0], NULL)


@operation("VM.revert", Lock("VM", "revert", refuse=_refuse_revert))
async def revert(call: Call, snapshot: str) -> None:
    """The VM is stopped first. Disks that the snapshot knows are replaced by copies of its own; newer ones stay, taken
    off the VM.
    """
    row = existing(call.store, "VM", snapshot)
    vm = row["snapshot_of"]
    if is_null(vm) or call.store.row("VM", vm) is None:
        raise ApiError("NOT_IMPLEMENTED", "VM.revert of a VM that has been destroyed")
    if row["power_state"] != "Halted":
        raise ApiError("NOT_IMPLEMENTED", "VM.revert to a checkpoint")
    if call.store.get("VM", vm, "power_state") != "Halted":
        await perform(call, "VM.hard_shutdown", vm)
    await call.transact([MapPut(cls="VM", ref=vm, field="current_operations", key=call.task, value="reverting")])
    call.ending.append(MapDrop(cls="VM", ref=vm, field="current_operations", key=call.task))
    drives = vm_snapshots.disk_drives(call.store, snapshot)
    known = {existing(call.store, "VDI", vdi)["snapshot_of"] for vdi in drives.values()}
    replaced = [vdi for vdi in vm_snapshots.disk_drives(call.store, vm).values() if vdi in known]
    copies = {vbd: await clone_disk(call, vdi) for vbd, vdi in drives.items()}
    await call.transact(with_allowed(call.store, vm_snapshots.reverted(call.store, snapshot, vm, copies, fresh)))
    call.undo.clear()  # the copies are the VM's disks from here on
    for disk in replaced:
        if not existing(call.store, "VDI", disk)["VBDs"]:
            await perform(call, "VDI.destroy", disk)
    call.on_success += published(call.store, "VM", vm, [*call.ending])
    _alert(call, vm, "VM_SNAPSHOT_REVERTED", row)


def _alert(call: Call, vm: str, name: str, snapshot: Record) -> None:
    row = existing(call.store, "VM", vm)
    body = vm_messages.body(name, row, snapshot=snapshot)
    call.alerts.append(alerts.new(name, vm_messages.PRIORITY, "VM", row["uuid"], body))
