"""Copies the pool's database to disks of SRs, on the coordinator: from what it follows, so no commit waits for a copy.

A disk gets all rows anew when some have changed, at most every few seconds; `VDI.metadata_latest` says whether the last
write went well. Which disks, the rows say (`decisions.metadata_disks`), so whoever starts anew, or takes over, goes on.
One that does not answer holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final

from services.api import stored_databases
from services.api.api import Api
from services.api.decisions import metadata_disks
from services.api.decisions.rows import Rows, existing, the_pool
from shared import alerts
from shared.bus.interface import BusError
from shared.contracts.db import Delta, RowPresent
from shared.errors import ApiError
from shared.redo_blocks import deltas
from shared.selection import Selection
from shared.store import Touched

log = logging.getLogger("api.databases")

EVERY: Final = 5.0
"""Seconds at least between two writes to a disk."""
SHARE: Final = 4.0
"""So many times as long as a write took, there is no other to that disk."""
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 120.0
"""Seconds between attempts to write to a disk that fails: doubled from failure to failure."""

SWITCH: Final = "metadata_lun_alerts"
"""Key of `pool.other_config`; "false" keeps the alerts away."""
BROKEN: Final = ("METADATA_LUN_BROKEN", 3)
HEALTHY: Final = ("METADATA_LUN_HEALTHY", 4)

FAILURES: Final = (ApiError, OSError, stored_databases.TooLarge)
"""Of a write."""


@dataclass(slots=True)
class _Disk:
    """`has`: which of the changes that were seen, None before the first write. `pause`: after its last failure.

    `again`: when it may be written again (monotonic).
    """

    has: int | None = None
    pause: float = 0.0
    again: float = 0.0
    writing: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self.writing is not None and not self.writing.done()


class DatabaseReplication:
    """Coordinator only. `every` (seconds), `share`: as `EVERY`, `SHARE`."""

    def __init__(self, api: Api, every: float = EVERY, share: float = SHARE) -> None:
        self._api = api
        self._every = every
        self._share = share
        self._changes = 0
        """How often persistent rows have changed, as far as it was seen."""
        self._disks: dict[str, _Disk] = {}
        self._metadata = Selection("VDI", metadata_disks.is_metadata)

    async def run(self) -> None:
        """Until cancelled, with what it has begun."""
        self._api.replica.watch(self._seen)
        try:
            while True:
                self.begin()
                await asyncio.sleep(self._every)
        finally:
            self._api.replica.unwatch(self._seen)
            running = [disk.writing for disk in self._disks.values() if disk.writing is not None]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _seen(self, _: list[Touched], delta: Delta | None) -> None:
        if delta is None or next(deltas.of_changes(delta.changes), None) is not None:
            self._changes += 1

    def begin(self) -> list[asyncio.Task[None]]:
        """Begins to write where there is something new."""
        store = self._api.store
        wanted = metadata_disks.replicated(store, self._metadata.among(store))
        self._disks = {vdi: disk for vdi, disk in self._disks.items() if vdi in wanted or disk.busy}
        begun = []
        for vdi in wanted:
            disk = self._disks.setdefault(vdi, _Disk())
            if not disk.busy and disk.has != self._changes and time.monotonic() >= disk.again:
                disk.writing = asyncio.create_task(self._write(vdi, disk), name=f"database to {vdi}")
                begun.append(disk.writing)
        return begun

    async def _write(self, vdi: str, disk: _Disk) -> None:
        changes, began = self._changes, time.monotonic()
        try:
            await stored_databases.save(self._api, vdi)
        except FAILURES as error:
            disk.pause = min(LONGEST_PAUSE, 2 * disk.pause or FIRST_PAUSE)
            disk.again = time.monotonic() + disk.pause
            if _wanted(self._api.store, vdi):
                why = stored_databases.reason(error)
                log.warning("the database cannot be copied to disk %s: %s", vdi, why)
                await self._say(vdi, False, why)
            return
        disk.pause = 0.0
        disk.again = time.monotonic() + self._share * (time.monotonic() - began)
        if await self._say(vdi, True, ""):
            disk.has = changes

    async def _say(self, vdi: str, healthy: bool, why: str) -> bool:
        """To the disk's row and to people, when it is other than before. False: the database did not take it."""
        store = self._api.store
        if not _wanted(store, vdi) or existing(store, "VDI", vdi)["metadata_latest"] == healthy:
            return True
        uuid = existing(store, "VDI", vdi)["uuid"]
        try:
            await self._api.database.transact([metadata_disks.latest(vdi, healthy)], [RowPresent(cls="VDI", ref=vdi)])
        except ApiError as error:
            log.warning("the row of disk %s does not say how copying goes: %s", vdi, error)
            return False
        await self._alert(uuid, healthy, why)
        return True

    async def _alert(self, uuid: str, healthy: bool, why: str) -> None:
        pool = the_pool(self._api.store)
        if pool is None or pool["other_config"].get(SWITCH) == "false":
            return
        name, priority = HEALTHY if healthy else BROKEN
        body = f"Redo log [DR redo log for VDI {uuid}]" + (f": {why}" if why else "")
        try:
            await alerts.publish(self._api.bus, alerts.new(name, priority, "Pool", pool["uuid"], body))
        except BusError as error:
            log.warning("nobody hears that %s: %s", body, error)


def _wanted(rows: Rows, vdi: str) -> bool:
    row = rows.row("VDI", vdi)
    return row is not None and metadata_disks.is_replicated(rows, row)
