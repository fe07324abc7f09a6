"""The redo log on a disk of an SR: attached on this host by its storage service, taken up and left as the pool's row
says (`pool.redo_log_enabled`, `redo_log_vdi`). Which disk that is a start finds in `standing.json`, before it has rows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty as NothingThere
from queue import SimpleQueue
from typing import Final

from services.db.checkpoint import Checkpoints
from services.db.health import HealthAlerts
from services.db.redo.interface import Checkpoint, RedoLogError
from services.db.redo.mirrored import MirroredRedoLog
from services.db.standby.rows import Rows
from shared.bus.contract import Empty
from shared.bus.interface import Bus
from shared.contracts import storage
from shared.contracts.db import REDO_LOG_DATAPATHS, Change, Committed, RedoLogDisk, Transact, Update, UseRedoLog
from shared.errors import ApiError, internal_error
from shared.store import NULL, Store

log = logging.getLogger("db.redo_log")

ASKING: Final = 5.0
"""Seconds that the storage service may take to say where a disk is."""
STARTING: Final = 20.0
"""Seconds that a start waits for it: the local log has all that was acknowledged here. One without rows waits on."""
AGAIN: Final = 1.0
"""Seconds between two looks."""
SWEEP: Final = 60.0
"""Seconds between two looks for disks that are open here and hold no redo log: of a call that was cut off."""
FILL: Final = 30.0
"""Seconds that writing all rows to it may take (as the original's limit, database-pool-ha 2.2)."""

News = SimpleQueue[tuple[bool, str]]
"""(healthy, why) of the disk, in order."""


async def opened(bus: Bus, host: str, disk: RedoLogDisk) -> Path:
    """Where this host has it. Asked again, the answer is the same. Raises CANNOT_ENABLE_REDO_LOG, and what the storage
    service raises.
    """
    wanted = storage.DiskOpen(dp=disk.datapath, sr=disk.sr, location=disk.location, writable=True)
    try:
        async with asyncio.timeout(ASKING):
            [backend] = (await bus.call(storage.OPEN, storage.Open(disks=[wanted]), host=host)).backends
    except TimeoutError:
        raise internal_error("the storage service does not answer") from None
    if backend.kind not in ("file", "block") or backend.format != "raw":
        await bus.call(storage.CLOSE, storage.Close(dps=[disk.datapath]), host=host)
        kind = f"{backend.kind}, {backend.format}"
        raise ApiError("CANNOT_ENABLE_REDO_LOG", f"disks of that SR are neither raw files nor block devices ({kind})")
    return Path(backend.path)


async def at_start(
    bus: Bus, host: str, disk: RedoLogDisk, has_rows: bool, reigns: Callable[[], Awaitable[bool]]
) -> Path | None:
    """Where it is, for a process that was primary; None where it cannot be had in time, or where another process
    `reigns`: that one has what is there, and more.
    """
    began, told = time.monotonic(), ""
    while True:
        if await reigns():
            return None
        try:
            return await opened(bus, host, disk)
        except ApiError as error:
            if str(error) != told:
                told = str(error)
                log.error("the disk %s of the redo log is not attached yet: %s", disk.vdi, told)
        if has_rows and time.monotonic() - began > STARTING:
            log.critical(
                "starting without the redo log on disk %s: what was acknowledged here is in the local one", disk.vdi
            )
            return None
        await asyncio.sleep(AGAIN)


class Fills:
    """The disk's checkpoints."""

    def __init__(self, redo_log: MirroredRedoLog) -> None:
        self._log = redo_log

    def checkpoint(self) -> Checkpoint:
        return self._log.copy_checkpoint()


class RedoDisk:
    """`writing`: held while all rows are written to a file. `using`: the disk that the start has found."""

    def __init__(
        self,
        bus: Bus,
        host: str,
        redo_log: MirroredRedoLog,
        rows: Rows,
        writing: asyncio.Lock,
        boot: str,
        news: News,
        using: RedoLogDisk | None,
    ) -> None:
        self.fills = Checkpoints(rows.committer, Fills(redo_log), boot, limit=FILL)
        self._bus = bus
        self._host = host
        self._log = redo_log
        self._rows = rows
        self._committer = rows.committer
        self._writing = writing
        self._news = news
        self._using = using
        self._deciding = asyncio.Lock()
        self._taking: asyncio.Task[None] | None = None
        self._told = ""
        self._swept = time.monotonic()

    @property
    def _store(self) -> Store:
        return self._committer.store

    @property
    def is_full(self) -> bool:
        """Whether a commit waits for room on it."""
        return self._log.full

    @property
    def _name(self) -> str:
        """Of the host, for people."""
        host = self._store.row("host", self._store.ref_of_uuid("host", self._where) or "")
        return "" if host is None else str(host["name_label"])

    @property
    def _where(self) -> str:
        """The host whose storage service attaches it: the coordinator, for a process without one of its own; or ""."""
        if self._host:
            return self._host
        pool = next(iter(self._store.rows("pool").values()), None)
        master = None if pool is None else self._store.row("host", pool["master"])
        return "" if master is None else str(master["uuid"])

    # ---- what is asked for

    async def use(self, request: UseRedoLog) -> Committed:
        """Only of a primary; the commit of the pool's row. Raises CANNOT_ENABLE_REDO_LOG: the row is as before."""
        async with self._deciding:
            if request.vdi:
                return await self._enable(request.vdi)
            committed = await self._say({"redo_log_enabled": False})
            await self._follow()
            return committed

    async def _enable(self, vdi: str) -> Committed:
        disk = _disk(self._store, vdi)
        if disk is None:
            raise ApiError("CANNOT_ENABLE_REDO_LOG", f"there is no disk {vdi}")
        if disk != self._using or self._log.state != "current":
            try:
                await self._change(disk, await opened(self._bus, self._where, disk), fresh=True)
                await self._take_up()
                await self._fill()
                if self._log.state != "current":
                    raise ApiError("CANNOT_ENABLE_REDO_LOG", self._log.why or "it could not be written")
            except ApiError as error:
                await self._change(None, None)
                why = error.params[0] if error.code == "CANNOT_ENABLE_REDO_LOG" else str(error)
                raise ApiError("CANNOT_ENABLE_REDO_LOG", why) from error
        committed = await self._say({"redo_log_enabled": True, "redo_log_vdi": vdi})
        await self._keep(disk)
        return committed

    async def _say(self, fields: dict[str, object]) -> Committed:
        pool = next(iter(self._store.rows("pool")))
        changes: list[Change] = [Update(cls="pool", ref=pool, fields=fields)]
        return await self._committer.transact(Transact(changes=changes))

    # ---- all the time

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._tell()
                async with self._deciding:
                    await self._look()
                await asyncio.sleep(AGAIN)
        finally:
            if self._taking is not None:
                self._taking.cancel()
            await self.fills.close()

    async def _look(self) -> None:
        await self._follow()
        if self._log.wants_rest:
            await self._in_turn(self._log.rest)
        if self._log.wants_disk:
            await self._have()
        if self._log.wants_fill:
            await self._fill()
        if self._where and time.monotonic() - self._swept > SWEEP:
            self._swept = time.monotonic()
            await self._sweep()

    async def _sweep(self) -> None:
        wanted = "" if self._using is None else self._using.datapath
        try:
            held = (await self._bus.call(storage.DATAPATHS, Empty(), host=self._where, timeout=ASKING)).datapaths
            stray = [item.dp for item in held if item.dp.startswith(REDO_LOG_DATAPATHS) and item.dp != wanted]
            if stray:
                log.warning("closing disks that hold no redo log (any more): %s", ", ".join(stray))
                await self._bus.call(storage.CLOSE, storage.Close(dps=stray), host=self._where)
        except ApiError as error:
            log.debug("which disks are open here is not known: %s", error)

    async def _follow(self) -> None:
        """The pool's row says which disk it is."""
        if not self._store.rows("pool"):
            return
        wanted = _wanted(self._store)
        if wanted != self._rows.kept.kept.redo_log:
            await self._keep(wanted)
        if wanted == self._using:
            return
        if wanted is None:
            await self._change(None, None)
            return
        try:
            await self._change(wanted, await opened(self._bus, self._where, wanted))
        except ApiError as error:
            if self._told != str(error):
                self._told = str(error)
                log.error("the disk %s of the redo log cannot be attached: %s", wanted.vdi, error)

    async def _change(self, disk: RedoLogDisk | None, path: Path | None, *, fresh: bool = False) -> None:
        before = self._using

        async def change() -> None:
            await self._committer.in_log_thread(lambda: self._log.use(path, fresh=fresh))
            self._using, self._told = disk, ""

        await self._committer.at_boundary(change)
        # Commits that were numbered before know nothing of the disk's layout.
        with suppress(ApiError):
            await self._committer.wait_durable(self._store.generation)
        if before is not None and before != disk:
            try:
                await self._bus.call(storage.CLOSE, storage.Close(dps=[before.datapath]), host=self._where)
            except ApiError as error:
                log.error("the disk %s of the former redo log cannot be closed: %s", before.vdi, error)

    async def _have(self) -> None:
        """A disk that failed may be attached somewhere else by now."""
        assert self._using is not None
        try:
            path = await opened(self._bus, self._where, self._using)
        except ApiError as error:
            why = str(error)
            await self._in_turn(lambda: self._log.failed(why))
            return
        if path != self._log.path:
            await self._change(self._using, path)
        await self._take_up()

    async def _take_up(self) -> None:
        """Goes on where who waits for it is cancelled: what was opened is used, or closed."""
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._look_and_take(), name="redo log on a disk: take up")
        await asyncio.shield(self._taking)

    async def _look_and_take(self) -> None:
        try:
            copy, found = await asyncio.to_thread(self._log.look)
        except RedoLogError as error:
            why = str(error)
            await self._in_turn(lambda: self._log.failed(why))
        else:
            await self._in_turn(lambda: self._log.take_up(copy, found))

    async def _fill(self) -> None:
        if self._log.wants_fill:
            async with self._writing:
                await self.fills.write()

    async def make_room(self) -> bool:
        """Between two writes, one of which found no room on the disk. A disk that has none is left behind."""
        await self.fills.write_between()
        return True

    async def _in_turn(self, work: Callable[[], None]) -> None:
        """Between two writes, in the thread of the log."""

        def act() -> Awaitable[None]:
            return self._committer.in_log_thread(work)

        await self._committer.at_boundary(act)

    async def _keep(self, disk: RedoLogDisk | None) -> None:
        """For the next start."""
        try:
            await self._rows.note_redo_log(disk)
        except OSError as error:
            log.error("it cannot be written down which disk the redo log is on: %s", error)

    async def _tell(self) -> None:
        while True:
            try:
                healthy, why = self._news.get_nowait()
            except NothingThere:
                return
            kind = f"on disk {self._using.vdi}" if self._using is not None else "on a disk"
            await HealthAlerts(self._bus, self._store, kind, self._name).tell(healthy, why)


def _wanted(store: Store) -> RedoLogDisk | None:
    """What the pool's row says."""
    pool = next(iter(store.rows("pool").values()))
    return _disk(store, pool["redo_log_vdi"]) if pool["redo_log_enabled"] else None


def _disk(store: Store, vdi: str) -> RedoLogDisk | None:
    row = store.row("VDI", vdi) if vdi not in ("", NULL) else None
    sr = store.row("SR", row["SR"]) if row is not None else None
    if row is None or sr is None:
        return None
    return RedoLogDisk(vdi=str(row["uuid"]), sr=str(sr["uuid"]), location=str(row["location"]))
