"""VDI.pool_migrate: a disk moves to another SR, under its VM (storage 4.8).

While the VM runs its host mirrors the disk, and the VM goes on with the copy. Otherwise, as its snapshots in any case,
it is copied, between two hosts if none sees both SRs. The new disk has a reference and a uuid of its own. What a killed
API process leaves is ended by the next one (`services.api.unfinished_moves`).
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from services.api.allowed import published
from services.api.call import Call
from services.api.decisions import unfinished_moves, vdi_migration
from services.api.decisions.rows import existing
from services.api.decisions.unfinished_moves import Move, Stage
from services.api.decisions.vbd_operations import is_attached
from services.api.operation import Lock, operation
from services.api.operations.vdi_copies import blank_disk, write_content
from services.api.storage_motion import Motion
from shared.contracts.db import Change, MapDrop, MapPut
from shared.store import Store

IMAGE_FORMAT: Final = "dest-img-format"
"""The option that says of what format the new disks are to be."""


def _hold_disk(call: Call, store: Store, arguments: tuple[Any, ...]) -> Sequence[Change]:
    """The VM's own refusals came before."""
    vdi, sr, options = arguments
    refusal = vdi_migration.check_disk(store, vdi, sr, options.get(IMAGE_FORMAT, ""))
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
    like = {"image-format": options[IMAGE_FORMAT]} if options.get(IMAGE_FORMAT) else {}
    for snapshot in vdi_migration.snapshots(call.store, vm, vdi):
        motion.moved[snapshot] = await _copied(call, snapshot, sr, like)
    vbd = vdi_migration.vbd_of(call.store, vm, vdi)
    if not (vdi_migration.is_live(call.store, vm) and is_attached(existing(call.store, "VBD", vbd))):
        new = await _copied(call, vdi, sr, like)
        motion.moved[vdi] = new
    else:
        before = len(call.undo)
        new = await _blank(call, vdi, sr, like, "mirror")
        undo = call.undo[before:]
        del call.undo[before:]
        await motion.mirror(existing(call.store, "VM", vm)["resident_on"], vbd, vdi, new, undo)
    await motion.finish()
    return new


async def _copied(call: Call, vdi: str, sr: str, sm_config: Mapping[str, str]) -> str:
    new = await _blank(call, vdi, sr, sm_config, "copy")
    await write_content(call, vdi, new)
    return new


async def _blank(call: Call, vdi: str, sr: str, sm_config: Mapping[str, str], stage: Stage) -> str:
    """Nobody else uses it before it is whole. Rows know of it before it is made."""
    before = len(call.undo)
    row = existing(call.store, "VDI", vdi)
    move = Move(vdi, call.api.uuid_of("SR", sr), str(uuids.uuid4()), call.task, stage)

    async def forget() -> None:
        if call.store.ref_of_uuid("VDI", named.uuid) is None:  # else it is found and looked at again
            await call.api.database.transact([unfinished_moves.forgotten(vdi)])

    named = move
    call.undo.append(forget)
    await call.transact([unfinished_moves.noted(move)])
    new = await blank_disk(call, row, sr, read_only=False, sm_config=sm_config, uuid=move.uuid)
    named = replace(move, uuid=existing(call.store, "VDI", new)["uuid"])  # a SMAPIv1 driver chooses for itself
    given_back = _free(call, new)

    async def gone() -> None:
        call.ending.remove(given_back)

    call.undo.insert(before + 1, gone)
    call.ending.append(given_back)
    await call.transact([_busy(call, new), unfinished_moves.noted(named)])
    return new
