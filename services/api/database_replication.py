"""Copies the pool's database to disks of SRs, on the coordinator: from what it follows, so no commit waits for a copy.

A disk gets all rows anew when some have changed, at most every few seconds; `VDI.metadata_latest` says whether the last
write went well. Which disks, the rows say (`decisions.metadata_disks`), so whoever starts anew, or takes over, goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid as uuids
from typing import Final

from services.api import stored_databases
from services.api.api import Api
from services.api.decisions import metadata_disks
from services.api.decisions.rows import Rows, existing, the_pool
from shared.bus.interface import BusError
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.db import Delta, RowPresent
from shared.errors import ApiError
from shared.redo_blocks import deltas
from shared.store import Touched

log = logging.getLogger("api.databases")

EVERY: Final = 5.0
"""Seconds at least between two writes to a disk."""
SHARE: Final = 20
"""So many times as long as all writes took, nothing is written."""
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 120.0
"""Seconds between attempts to write to a disk that fails: doubled from failure to failure."""

SWITCH: Final = "metadata_lun_alerts"
"""Key of `pool.other_config`; "false" keeps the alerts away."""
BROKEN: Final = ("METADATA_LUN_BROKEN", 3)
HEALTHY: Final = ("METADATA_LUN_HEALTHY", 4)

FAILURES: Final = (ApiError, OSError, stored_databases.TooLarge)
"""Of a write."""


class DatabaseReplication:
    """Coordinator only. `every`: seconds; `EVERY`."""

    def __init__(self, api: Api, every: float = EVERY) -> None:
        self._api = api
        self._every = every
        self._changes = 0
        """How often persistent rows have changed, as far as it was seen."""
        self._written: dict[str, int] = {}
        """Disk to which of those changes it has."""
        self._failing: dict[str, tuple[float, float]] = {}
        """Disk to the pause after its last failure, and when that is over (monotonic)."""

    async def run(self) -> None:
        """Until cancelled."""
        self._api.replica.watch(self._seen)
        try:
            while True:
                began = time.monotonic()
                await self.look()
                await asyncio.sleep(max(self._every, SHARE * (time.monotonic() - began)))
        finally:
            self._api.replica.unwatch(self._seen)

    def _seen(self, _: list[Touched], delta: Delta | None) -> None:
        if delta is None or next(deltas.of_changes(delta.changes), None) is not None:
            self._changes += 1

    async def look(self) -> None:
        """Writes where there is something new: one disk after the other."""
        disks = metadata_disks.replicated(self._api.store)
        self._written = {vdi: change for vdi, change in self._written.items() if vdi in disks}
        self._failing = {vdi: pause for vdi, pause in self._failing.items() if vdi in disks}
        for vdi in disks:
            _, again = self._failing.get(vdi, (0.0, 0.0))
            if self._written.get(vdi) != self._changes and time.monotonic() >= again:
                await self._write(vdi)

    async def _write(self, vdi: str) -> None:
        changes = self._changes
        try:
            await stored_databases.save(self._api, vdi)
        except FAILURES as error:
            if _wanted(self._api.store, vdi):
                await self._failed(vdi, stored_databases.reason(error))
            return
        self._written[vdi] = changes
        self._failing.pop(vdi, None)
        await self._say(vdi, True, "")

    async def _failed(self, vdi: str, why: str) -> None:
        pause, _ = self._failing.get(vdi, (0.0, 0.0))
        pause = min(LONGEST_PAUSE, 2 * pause or FIRST_PAUSE)
        self._failing[vdi] = (pause, time.monotonic() + pause)
        log.warning("the database cannot be copied to disk %s: %s", vdi, why)
        await self._say(vdi, False, why)

    async def _say(self, vdi: str, healthy: bool, why: str) -> None:
        """To the disk's row and to people, when it is other than before."""
        store = self._api.store
        if not _wanted(store, vdi) or existing(store, "VDI", vdi)["metadata_latest"] == healthy:
            return
        uuid = existing(store, "VDI", vdi)["uuid"]
        try:
            await self._api.database.transact([metadata_disks.latest(vdi, healthy)], [RowPresent(cls="VDI", ref=vdi)])
        except ApiError as error:
            log.warning("the row of disk %s does not say how copying goes: %s", vdi, error)
            return
        await self._alert(uuid, healthy, why)

    async def _alert(self, uuid: str, healthy: bool, why: str) -> None:
        pool = the_pool(self._api.store)
        if pool is None or pool["other_config"].get(SWITCH) == "false":
            return
        name, priority = HEALTHY if healthy else BROKEN
        body = f"Redo log [DR redo log for VDI {uuid}]" + (f": {why}" if why else "")
        alert = Alert(
            id=str(uuids.uuid4()),
            name=name,
            priority=priority,
            cls="Pool",
            obj_uuid=pool["uuid"],
            body=body,
            time=time.time(),
        )
        try:
            await self._api.bus.publish(ALERT, alert, cls=alert.cls, priority=str(priority), name=name)
        except BusError as error:
            log.warning("nobody hears that %s: %s", body, error)


def _wanted(rows: Rows, vdi: str) -> bool:
    row = rows.row("VDI", vdi)
    return row is not None and metadata_disks.is_replicated(rows, row)
