"""Ends what is left of disks that changed their SR when the API process was killed: forward if rows or the VM's host
say that the new disk counts, back otherwise. The coordinator does it, as often as it takes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

import msgspec

from services.api.api import Api
from services.api.decisions import unfinished_moves as decisions
from services.api.decisions import vdi_migration
from services.api.decisions.rows import existing
from services.api.decisions.sm_features import plugged_pbds
from services.api.decisions.sr_hosts import host_for
from services.api.decisions.unfinished_moves import Move
from services.api.decisions.vbd_operations import is_attached
from services.api.forwarding import vbd_spec
from services.api.operations.vdi_copies import target_datapath
from services.api.storage_hosts import ask, disk, is_live, rescan
from services.api.storage_motion import landed
from services.api.subcalls import perform_alone
from shared.bus.interface import BusError
from shared.contracts import motion, vm_disks
from shared.contracts.db import Change, RowPresent
from shared.errors import ApiError
from shared.selection import Selection

log = logging.getLogger("api.motion")

EVERY: Final = 5.0
"""Seconds between two looks."""
_PASSING: Final = frozenset(
    {"VDI_IN_USE", "HOST_OFFLINE", "SR_NOT_ATTACHED", "SR_HAS_NO_PBDS", "OTHER_OPERATION_IN_PROGRESS", "DB_CONFLICT"}
)
"""What may be otherwise at the next look."""


class UnfinishedMoves:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._told: set[str] = set()
        self._moving = Selection("VDI", decisions.is_moving)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for move in self._left():
                await self._try(move)
            await asyncio.sleep(EVERY)

    def _left(self) -> list[Move]:
        api = self._api
        return decisions.left(api.store, self._moving.among(api.store), api.running)

    async def _try(self, move: Move) -> None:
        try:
            await self._settled(move)
        except ApiError as error:
            if move.former not in self._told:
                self._told.add(move.former)
                log.warning("the move of disk %s is not ended yet: %s", move.former, error)
        else:
            self._told.discard(move.former)

    async def _settled(self, move: Move) -> None:
        """Raises what may be otherwise at the next look. Of what will not, people are told, and it is left as it is."""
        try:
            await self._settle(move)
        except ApiError as error:
            if isinstance(error, BusError) or error.code in _PASSING or self._api.store.row("VDI", move.former) is None:
                raise
            await self._write([decisions.forgotten(move.former)])
            log.warning("the move of disk %s is not ended: %s", move.former, error)

    async def _settle(self, move: Move) -> None:
        """One step leads to the next, each of which is there to be found."""
        api = self._api
        if move.stage == "landed":
            if existing(api.store, "VDI", move.former)["VBDs"]:  # somebody uses it for something else by now
                await self._write([decisions.forgotten(move.former)])
            else:
                log.info("disk %s has moved, and is removed", move.former)
                await perform_alone(api, "VDI.destroy", move.former)
            return
        new = await self._new(move)
        if new is None:
            await self._write([decisions.forgotten(move.former)])
        elif existing(api.store, "VDI", new)["VBDs"] or (move.stage == "mirror" and await self._has_moved(move, new)):
            await self._write(landed(api.store, move.former, new))
            await self._settle(replace(move, stage="landed"))
        else:
            await self._remove(move, new)

    async def _new(self, move: Move) -> str | None:
        """Its reference. The process may have been killed before there was a row, or a disk."""
        api = self._api
        known = api.store.ref_of_uuid("VDI", move.uuid)
        sr = api.store.ref_of_uuid("SR", move.sr)
        if known is None and sr is not None:
            await rescan(api, sr, api.uuid_of("host", host_for(api.store, sr)))
            known = api.store.ref_of_uuid("VDI", move.uuid)
        return known

    async def _has_moved(self, move: Move, new: str) -> bool:
        """Asks the VM's host, which ends the move; or, when the VM has ended, those where it may have been. Raises when
        nobody can tell: then both disks are kept.
        """
        api = self._api
        vm = vdi_migration.vm_of(api.store, move.former)
        vbd = vdi_migration.vbd_of(api.store, vm, move.former)
        place, row = disk(api, new), existing(api.store, "VM", vm)
        spec = msgspec.structs.replace(vbd_spec(api.store, vbd), sr=place.sr, location=place.location, vdi=new)
        request = vm_disks.VbdMove(vm=api.uuid_of("VM", vm), vbd=spec)
        runs = vdi_migration.is_live(api.store, vm) and is_attached(existing(api.store, "VBD", vbd))
        for host in [row["resident_on"]] if runs else self._seeing(new):
            if not (runs or is_live(api.store, host)):
                raise ApiError("HOST_OFFLINE", host)
            found = await ask(api, host, vm_disks.VBD_MOVE_END, request)
            if found.known:
                return found.moved
        raise ApiError("VM_BAD_POWER_STATE", vm, "running", "halted" if runs else row["power_state"].lower())

    async def _remove(self, move: Move, new: str) -> None:
        log.info("disk %s has not moved: its new one, %s, is removed", move.former, move.uuid)
        try:
            await perform_alone(self._api, "VDI.destroy", new)
        except ApiError as error:
            if error.code == "VDI_IN_USE":
                await self._release(move, new)
            raise
        await self._write([decisions.forgotten(move.former)])

    async def _release(self, move: Move, new: str) -> None:
        """A host that is silent cannot say that it copies no more to the one that has the disk open for it."""
        api = self._api
        end = motion.ReceiveEnd(dp=target_datapath(move.uuid))
        for host in self._seeing(new):
            if is_live(api.store, host):
                await ask(api, host, motion.RECEIVE_END, end)

    def _seeing(self, vdi: str) -> list[str]:
        """The hosts that have the disk's SR, those that answer first."""
        rows = self._api.store
        hosts = [pbd["host"] for pbd in plugged_pbds(rows, existing(rows, "SR", existing(rows, "VDI", vdi)["SR"]))]
        return sorted(hosts, key=lambda host: not is_live(rows, host))

    async def _write(self, changes: list[Change]) -> None:
        await self._api.database.transact(changes, [RowPresent(cls=change.cls, ref=change.ref) for change in changes])
