"""VDI.pool_migrate: a disk moves to another SR, under its VM (storage 4.8).

While the VM runs its host mirrors the disk, and the VM goes on with the copy. Otherwise, as its snapshots in any case,
it is copied. The new disk has a reference and a uuid of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.api.allowed import published
from services.api.call import Call
from services.api.decisions import vdi_migration
from services.api.decisions.rows import existing
from services.api.decisions.vbd_operations import is_attached
from services.api.operation import Lock, operation
from services.api.operations.vdi_copies import blank_disk, write_content
from services.api.storage_motion import Motion
from shared.contracts.db import Change, MapDrop, MapPut
from shared.store import Store


def _hold_disk(call: Call, store: Store, arguments: tuple[Any, ...]) -> Sequence[Change]:
    """The VM's own refusals came before."""
    vdi, sr, _ = arguments
    refusal = vdi_migration.check_disk(store, vdi, sr)
    if refusal is not None:
        raise refusal
    taken: list[Change] = [_busy(call, vdi)]
    given_back = _free(call, vdi)
    if given_back not in call.ending:
        call.ending.append(given_back)
    return [*taken, *published(store, "VDI", vdi, taken)]


def _busy(call: Call, vdi: str) -> Change:
    return MapPut(cls="VDI", ref=vdi, field="current_operations", key=call.task, value="mirror")


def _free(call: Call, vdi: str) -> Change:
    return MapDrop(cls="VDI", ref=vdi, field="current_operations", key=call.task)


@operation(
    "VDI.pool_migrate",
    Lock(
        "VM",
        "migrate_send",
        find=lambda store, arguments: vdi_migration.vm_of(store, arguments[0]),
        reserve=_hold_disk,
    ),
)
async def pool_migrate(call: Call, vdi: str, sr: str, options: dict[str, str]) -> str:
    """The reference of the disk in its new place; in the SR where it is already, the disk itself."""
    if existing(call.store, "VDI", vdi)["SR"] == sr:
        return vdi
    vm = vdi_migration.vm_of(call.store, vdi)
    motion = Motion(call)
    for snapshot in vdi_migration.snapshots(call.store, vm, vdi):
        motion.moved[snapshot] = await _copied(call, snapshot, sr)
    vbd = vdi_migration.vbd_of(call.store, vm, vdi)
    if not (vdi_migration.is_live(call.store, vm) and is_attached(existing(call.store, "VBD", vbd))):
        new = await _copied(call, vdi, sr)
        motion.moved[vdi] = new
    else:
        before = len(call.undo)
        new = await _blank(call, vdi, sr)
        undo = call.undo[before:]
        del call.undo[before:]
        await motion.mirror(existing(call.store, "VM", vm)["resident_on"], vbd, vdi, new, undo)
    await motion.finish()
    return new


async def _copied(call: Call, vdi: str, sr: str) -> str:
    new = await _blank(call, vdi, sr)
    await write_content(call, vdi, new)
    return new


async def _blank(call: Call, vdi: str, sr: str) -> str:
    """Nobody else uses it before it is whole."""
    before = len(call.undo)
    new = await blank_disk(call, existing(call.store, "VDI", vdi), sr, read_only=False)
    given_back = _free(call, new)

    async def gone() -> None:
        call.ending.remove(given_back)

    call.undo.insert(before, gone)
    call.ending.append(given_back)
    await call.transact([_busy(call, new)])
    return new
