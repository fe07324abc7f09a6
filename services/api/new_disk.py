"""A disk that a call makes on an SR, and its row: both are there when the call has succeeded, else neither."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from typing import Any

from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions import unfinished_disks, vdi_rows
from services.api.decisions.rows import existing
from services.api.decisions.sr_hosts import host_for
from services.api.storage_hosts import ask
from shared.bus.contract import Method
from shared.bus.interface import BusError
from shared.contracts import storage as contract
from shared.contracts.db import Change, Create, Delete, MapDrop, Update
from shared.errors import ApiError


class NewDisk:
    """`uuid`: what it is to be called; a SMAPIv1 driver chooses another, and writes the row before it answers."""

    def __init__(self, call: Call, sr: str, uuid: str = "") -> None:
        self._derived = "" if uuid else _derived(call)
        self._named = bool(uuid)
        self.uuid = uuid or self._derived or str(uuids.uuid4())
        self.sr_uuid = call.api.uuid_of("SR", sr)
        self._call = call
        self._sr = sr
        self._ref = new_ref()
        self._info: contract.VdiInfo | None = None
        call.moves_disk(self.uuid)

    async def make(self, method: Method[Any, contract.VdiInfo], request: Any, host: str = "") -> contract.VdiInfo:
        """`host`: reference, "" for any with the SR."""
        call = self._call
        if not (self._derived or self._named):
            note = unfinished_disks.noted(self._sr, call.task, self.uuid)
            call.ending.append(unfinished_disks.forgotten(note))
            await call.transact([note])
        call.undo.append(self._undo)
        try:
            self._info = await ask(call.api, host or host_for(call.store, self._sr), method, request)
        except ApiError as error:
            if not isinstance(error, BusError) and error.code != "TASK_CANCELLED":
                call.undo.remove(self._undo)  # the SR says that there is none
            raise
        call.moves_disk(self._info.uuid)
        return self._info

    async def keep(self, given: Mapping[str, Any]) -> str:
        """Writes the row: what the SR says of the disk, with what the caller has `given` on top. Its reference."""
        store, info = self._call.store, self._info
        assert info is not None, "made before it is kept"
        places = vdi_rows.places(store, self._sr)
        known = vdi_rows.disk_at(store, self._sr, info.location)
        change: Change
        if known is not None:
            self._ref = known
        given = self._marked(given, info.uuid, {} if known is None else existing(store, "VDI", known)["other_config"])
        if known is not None:
            said = vdi_rows.said(info, places, existing(store, "VDI", known))
            change = Update(cls="VDI", ref=known, fields={**said, **given})
        else:
            change = Create(cls="VDI", ref=self._ref, fields={**vdi_rows.found(self._sr, info, places), **given})
        await self._call.transact([change, *published(store, "VDI", self._ref, [change])])
        return self._ref

    def _marked(self, given: Mapping[str, Any], uuid: str, before: Mapping[str, str]) -> Mapping[str, Any]:
        """With a mark, until the call has succeeded, for a disk that could not be found by the call's task; until what
        it is made for has, when the caller gives an owner. A mark that was copied from another disk is none. `before`:
        the map that a driver has written, and what it was marked with then.
        """
        call, key = self._call, unfinished_disks.MARK
        config = dict(given.get("other_config", before))
        owner = config.pop(key, "")
        if owner.startswith(unfinished_disks.UPLOAD) and " " not in owner:
            config[key] = unfinished_disks.mark(owner, uuid)
        elif uuid != self._derived and call.message.wire_name not in unfinished_disks.USED_UNSEEN:
            config[key] = unfinished_disks.mark(call.task, uuid)
            call.on_success.append(MapDrop(cls="VDI", ref=self._ref, field="other_config", key=key))
        said = "other_config" in given or key in config or key in before
        return {**given, "other_config": config} if said else given

    async def _undo(self) -> None:
        """First the disk: a driver looks at its row, and may remove it."""
        store = self._call.store
        if self._info is None:  # no answer: the SR knows whether there is a disk, and where
            host = host_for(store, self._sr)
            scan = await ask(self._call.api, host, contract.SR_SCAN, contract.SrRef(sr=self.sr_uuid))
            self._info = next((info for info in scan.disks if info.uuid == self.uuid), None)
        if self._info is not None:
            place = contract.VdiRef(sr=self.sr_uuid, location=self._info.location)
            await remove_disk(self._call, self._sr, place)
        row = store.row("VDI", self._ref)
        vbds: list[Change] = [Delete(cls="VBD", ref=ref) for ref in (row["VBDs"] if row is not None else ())]
        await self._call.api.database.transact([*vbds, Delete(cls="VDI", ref=self._ref)])


def _derived(call: Call) -> str:
    """A uuid that follows from the call's task; "" if that is the task of other calls, too."""
    if call.inside or call.message.wire_name in unfinished_disks.USED_UNSEEN:
        return ""
    uuid = unfinished_disks.disk_of(call.task, call.disks_made)
    call.disks_made += 1
    return uuid


async def remove_disk(call: Call, sr: str, place: contract.VdiRef) -> None:
    """Removes the disk itself; one that its SR no longer has is fine."""
    try:
        await ask(call.api, host_for(call.store, sr), contract.VDI_DESTROY, place)
    except ApiError as error:
        if error.code != "VDI_MISSING":
            raise
