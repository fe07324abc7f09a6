"""A disk that changes its SR, with what the rows say of it (storage 4.8).

The new disk is there, and holds everything, before any row names it; only then does the former one go. Who the disk
belongs to in between is said by the host of a VM that has it: it is asked before anything is removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from services.api.call import Call
from services.api.decisions import unfinished_moves
from services.api.decisions.rows import Rows, existing
from services.api.forwarding import vbd_spec
from services.api.new_disk import remove_disk
from services.api.operations.vdi import users_forgotten
from services.api.storage_hosts import ask, disk
from shared.bus.context import current
from shared.bus.interface import BusError
from shared.contracts import vm_disks
from shared.contracts.db import Change, Delete, Update
from shared.errors import ApiError, internal_error
from shared.store import NULL

log = logging.getLogger("api.motion")

Step = Callable[[], Awaitable[None]]


class Motion:
    """`moved`: former disks to new ones, by reference."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.moved: dict[str, str] = {}

    async def mirror(self, host: str, vbd: str, vdi: str, new: str, undo: Sequence[Step]) -> None:
        """The VM that runs on the host (reference) goes on with the new disk. `undo`: what removes that, last step
        first. Raises MIRROR_FAILED [vdi] and what the hosts say; then the VM has the former disk.
        """
        call = self._call
        place = disk(call.api, new)
        spec = msgspec.structs.replace(vbd_spec(call.store, vbd), sr=place.sr, location=place.location, vdi=new)
        request = vm_disks.VbdMove(vm=call.api.uuid_of("VM", existing(call.store, "VBD", vbd)["VM"]), vbd=spec)
        in_doubt = False

        async def settle() -> None:
            """The call has failed, which the VM may not have."""
            found = await ask(call.api, host, vm_disks.VBD_MOVE_END, request)
            if found.moved:
                self.moved[vdi] = new
                call.on_failure += await self._finish()
                call.undo.clear()
            elif in_doubt and not found.known:
                raise internal_error(f"nobody knows which disk the VM had at its end: {vdi} and {new} are both kept")
            else:
                for step in reversed(undo):
                    await step()

        call.undo.append(settle)
        try:
            await ask(call.api, host, vm_disks.VBD_MOVE, request)
        except ApiError as error:
            in_doubt = isinstance(error, BusError) or error.code == "TASK_CANCELLED"
            raise
        except asyncio.CancelledError:
            in_doubt = True
            raise
        self.moved[vdi] = new

    async def finish(self) -> None:
        """To its end, also when the call is cancelled: from here on it is a success."""
        work = asyncio.create_task(_for_nobody(self._finish()), name=f"end of {self._call.wire}")
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work
        self._call.undo.clear()
        self._call.on_success += work.result()

    async def _finish(self) -> list[Change]:
        """What is to be written when the call ends."""
        await self._call.transact(self._changes())
        return [change for former in self.moved for change in await self._removed(former)]

    def _changes(self) -> list[Change]:
        store = self._call.store
        changes: list[Change] = []
        for former, new in self.moved.items():
            row = existing(store, "VDI", former)
            changes += landed(store, former, new)
            if row["is_a_snapshot"]:
                fields = {"is_a_snapshot": True, "snapshot_time": row["snapshot_time"]}
                of = self.moved.get(row["snapshot_of"], NULL)
                changes.append(Update(cls="VDI", ref=new, fields={**fields, "snapshot_of": of}))
        return changes

    async def _removed(self, former: str) -> list[Change]:
        """A disk that cannot be removed stays, with its row, for somebody to look at."""
        call = self._call
        row = call.store.row("VDI", former)
        if row is None:
            return []
        call.moves_disk(row["uuid"])
        try:
            await remove_disk(call, row["SR"], disk(call.api, former))
        except ApiError as error:
            log.warning("disk %s has moved, but cannot be removed: %s", row["uuid"], error)
            return []
        return [*users_forgotten(call.store, former), Delete(cls="VDI", ref=former)]


def landed(rows: Rows, former: str, new: str) -> list[Change]:
    """The disk that counts is the new one from now on."""
    changes: list[Change] = [
        Update(cls="VBD", ref=vbd, fields={"VDI": new}) for vbd in existing(rows, "VDI", former)["VBDs"]
    ]
    move = unfinished_moves.of(rows, former)
    return changes if move is None else [*changes, unfinished_moves.noted(replace(move, stage="landed"))]


async def _for_nobody(work: Coroutine[Any, Any, list[Change]]) -> list[Change]:
    """Whoever cancels the call's task does not stop it."""
    context = current.get()
    current.set(msgspec.structs.replace(context, task="", origin=context.task or context.origin, deadline=None))
    return await work
