"""The database process: holds all rows, changes them by transactions, publishes every commit."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import Counter, Gauge

from services.db import seed
from services.db.checkpoint import Checkpoints
from services.db.committer import Committer
from services.db.disk import Disk
from services.db.health import HealthAlerts, Policy
from services.db.history.history import History
from services.db.lock import StateLock
from services.db.outputs import conf, start
from services.db.outputs.flusher import Flusher
from services.db.recovery import boot_id, restore
from services.db.redo.block.log import BlockRedoLog
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import RedoLog
from services.db.redo.layered import LayeredRedoLog
from services.db.redo.mirrored import MirroredRedoLog
from services.db.redo.off import NoRedoLog
from services.db.redo.quorum.log import PATIENCE, QUEUE, QuorumRedoLog
from services.db.redo_disk import News, RedoDisk, at_start
from services.db.restores import Restores
from services.db.snapshots import Snapshots
from services.db.standby.kept import Kept, KeptFile
from services.db.standby.peers import Peers
from services.db.standby.recent import RecentDeltas
from services.db.standby.rows import Rows
from services.db.standby.semi_sync import Policy as Missing
from services.db.standby.stand import Stand, StandbyOptions
from shared import host_role
from shared.bus.context import current
from shared.bus.contract import Empty
from shared.config import ConfigError
from shared.contracts import db as contract
from shared.contracts.db_history import HISTORY
from shared.errors import ApiError
from shared.service import Service
from shared.store import NULL, Store

log = logging.getLogger("db")

PATIENCE_WITH_DISKS: Final = 12.0
"""Seconds that a disk of an SR may take for a step before commits go on without it; a lock is waited for 10."""

PROBE: Final = 2.0
"""Seconds between attempts to use a log that has failed, when nobody wants to write."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`seed`: JSON file that describes the pool to create when there is no database yet (`services.db.seed`).

    `redo_log`: file | block | quorum | off. `when_log_fails`: refuse | continue (`services.db.health`).
    `redo_log_device`: of `block`, a block device or a file. `redo_log_format`: what else it holds may be lost.
    `redo_log_patience`: seconds that it may take for one step (`services.db.redo.block`).
    `redo_log_queue`: of `quorum`, on the bus's broker. `redo_log_confirm`: seconds that the broker may take for a step.
    `checkpoint_bytes`: how long the redo log may grow before all rows are written anew.
    `db_conf`: says into which files all rows are written (`services.db.outputs`); "": `db.conf` in the state folder.
    `role_file`: says what the host is (`shared.host_role`) to a process that was told nothing else yet; `role` does
    where there is no such file: primary | standby. `standbys`: how many of them persist what they follow.
    `synchronous_standbys`, `synchronous_timeout` (seconds), `when_standbys_missing`: continue | refuse: whether, and
    how long, commits wait for standbys (`services.db.standby.semi_sync`).
    `history_bytes`, `history_days`: how much of what was changed is remembered, and for how long; 0: nothing.
    `history_volatile`: also of what does not outlive the machine, such as tasks and allowed operations.
    """

    seed: str = ""
    redo_log: str = "file"
    redo_log_device: str = ""
    redo_log_format: bool = False
    redo_log_patience: float = 30.0
    redo_log_queue: str = QUEUE
    redo_log_confirm: float = PATIENCE
    when_log_fails: Policy = "refuse"
    checkpoint_bytes: int = 64 * 1024 * 1024
    db_conf: str = ""
    role_file: str = ""
    role: str = "primary"
    standbys: int = 2
    synchronous_standbys: int = 0
    synchronous_timeout: float = 2.0
    when_standbys_missing: Missing = "continue"
    history_bytes: int = 256 * 1024 * 1024
    history_days: float = 30.0
    history_volatile: bool = False


def open_log(
    service: Service, options: Options, boot: str, disk: Disk, kept: KeptFile, host: str, news: News
) -> RedoLog:
    """The log that the options choose. `news`: hears of a disk that it is on as well. Raises `ConfigError`."""

    def primary() -> bool:
        """Whether this process is, or is about to be."""
        return kept.kept.role == "primary"

    folder = service.state_dir / "redo"
    journal = FileRedoLog(
        folder, boot, disk, synced=options.redo_log != "off", checkpoint_bytes=options.checkpoint_bytes
    )
    match options.redo_log:
        case "file":
            return _mirrored(journal, disk, kept, host, news)
        case "block":
            if not options.redo_log_device:
                raise ConfigError("option redo_log_device must name the device when redo_log is block")
            device = BlockRedoLog(
                Path(options.redo_log_device),
                disk,
                format=options.redo_log_format,
                patience=options.redo_log_patience,
                primary=primary,
                on_behind=_start_anew,
            )
            return LayeredRedoLog(journal, device, lambda: device.idle)
        case "quorum":
            if not service.config.bus.url.startswith("amqp"):
                raise ConfigError("option redo_log can be quorum only on a bus over RabbitMQ")
            queue = QuorumRedoLog(
                service.config.bus.url,
                queue=options.redo_log_queue,
                patience=options.redo_log_confirm,
                checkpoint_bytes=options.checkpoint_bytes,
                primary=primary,
                on_behind=_start_anew,
            )
            return LayeredRedoLog(journal, queue, lambda: queue.idle)
        case "off":
            return LayeredRedoLog(journal, NoRedoLog())
    raise ConfigError(f"option redo_log must be file, block, quorum or off, not {options.redo_log!r}")


def _mirrored(journal: FileRedoLog, disk: Disk, kept: KeptFile, host: str, news: News) -> MirroredRedoLog:
    def copy(path: Path, writes: bool) -> BlockRedoLog:
        return BlockRedoLog(path, disk, create=False, patience=PATIENCE_WITH_DISKS, primary=lambda: writes)

    def reads() -> bool:
        return kept.kept.role == "primary"

    def primary() -> bool:
        """The newest term that it knows of is its own."""
        return reads() and kept.lineage.host == host

    return MirroredRedoLog(journal, copy, reads, primary, _start_anew, lambda *said: news.put(said))


def _start_anew(why: str) -> None:
    """The pool's log has commits that are not here: a process that starts has them."""
    log.critical("%s", why)
    os._exit(host_role.RESTART)


class Database:
    """The primary: its store, log and committer, and the handlers of its queue."""

    def __init__(
        self,
        service: Service,
        options: Options,
        disk: Disk | None = None,
        boot: Callable[[], str] = boot_id,
        redo_disk: Path | None = None,
    ) -> None:
        """`redo_disk`: where the disk is that the redo log is on as well."""
        self._service = service
        self._options = options
        self._boot = boot()
        self.kept = KeptFile(service.state_dir, disk)
        if not self.kept.is_of(service.config.pool):
            put_aside(service.state_dir, self.kept)
        self.may_be_primary = may_be_primary(self.kept.kept, options.role, options.role_file)
        if not self.may_be_primary and not service.hosts:
            raise ConfigError("a standby has a host: [[hosts]] must name it")
        blocks = conf.load(service.state_dir / (options.db_conf or conf.NAME), service.state_dir)
        host = service.hosts[0].uuid if service.hosts else ""
        news: News = News()
        self.log = open_log(service, options, self._boot, disk or Disk(), self.kept, host, news)
        if redo_disk is not None and isinstance(self.log, MirroredRedoLog):
            self.log.use(redo_disk)
        began = time.monotonic()
        found = self.log.recover()
        self.history = History(
            service.state_dir / "history",
            options.history_bytes,
            options.history_days,
            volatile=options.history_volatile,
            disk=disk,
        )
        rebooted = found.boot not in ("", self._boot)
        if self.may_be_primary:
            held = restore(found, self._boot, self.history.replayed)
            begun = start.begin(
                self.log,
                found,
                held,
                boot=self._boot,
                folder=service.state_dir,
                blocks=blocks,
                disk=disk,
                pool=service.config.pool,
            )
        else:
            begun = start.Begun(restore(found, found.boot or self._boot, self.history.replayed), found.requests)
            self.log.begin(begun.store.generation, begun.store.term)
        self.store = begun.store
        if begun.source is not None:
            self.history.restored(self.store.generation, self.store.term, self.store.count())
        self._told: asyncio.Queue[tuple[bool, str]] = asyncio.Queue()
        self.committer = Committer(
            self.store,
            self.log,
            lambda deltas: self.rows.publish(deltas),
            options.when_log_fails,
            lambda *news: self._told.put_nowait(news),
        )
        self.committer.remember(begun.requests.items())
        self.committer.observer = self.history
        self.snapshots = Snapshots(self.store, self.committer, lambda: list(self.rows.lineage.starts))
        self.writing = asyncio.Lock()
        """Of those who write all rows to a file: one at a time."""
        self._checkpoints = Checkpoints(self.committer, self.log, self._boot)
        self.committer.make_room = self._checkpoints.write_between
        recent = RecentDeltas()
        if found.records and begun.source is None and not rebooted:
            recent.refill(found.records, found.records[0].generation - 1)
        self.rows = Rows(host, self.committer, self._checkpoints, self.kept, recent, self.writing)
        left = rebooted and not self.may_be_primary
        self.rows.settle(found, rebooted, left, service.config.pool, from_file=begun.source is not None)
        self.stand = Stand(
            service,
            self.rows,
            self.snapshots,
            StandbyOptions(
                self.may_be_primary,
                options.standbys,
                options.synchronous_standbys,
                options.synchronous_timeout,
                options.when_standbys_missing,
            ),
            self._publish,
            self.seed,
            disk,
            behind=begun.behind,
        )
        self.redo_disk: RedoDisk | None = None
        if isinstance(self.log, MirroredRedoLog):
            using = self.kept.kept.redo_log if redo_disk is not None else None
            disks = RedoDisk(service.bus, host, self.log, self.rows, self.writing, self._boot, news, using)
            self.redo_disk = disks
            self.committer.make_room = self._make_room
            self.log.arm()
        self.restores = Restores(self.committer, self._checkpoints, self.writing, self.rows.restored)
        self.flusher = Flusher(self.committer, blocks, self.writing, disk, service.config.pool)
        log.info(
            "recovered",
            extra={
                "rows": self.store.count(),
                "records": len(found.records),
                "generation": self.store.generation,
                "term": self.store.term,
                "seconds": round(time.monotonic() - began, 3),
            },
        )
        registry = service.registry
        Gauge("xapi_db_generation", "Generation of the newest commit", registry=registry).set_function(
            lambda: self.store.generation
        )
        Gauge("xapi_db_rows", "Rows of all classes", registry=registry).set_function(self.store.count)
        Gauge("xapi_db_healthy", "1 when the redo log can be written", registry=registry).set_function(
            lambda: int(self.committer.healthy)
        )
        Gauge("xapi_db_log_bytes", "Bytes written to the redo log", registry=registry).set_function(
            lambda: self.log.bytes
        )
        Gauge("xapi_db_syncs", "fdatasync calls", registry=registry).set_function(lambda: self.log.syncs)
        self._commits = Counter("xapi_db_commits", "Transactions committed", registry=registry)
        self._conflicts = Counter("xapi_db_conflicts", "Transactions refused by a precondition", registry=registry)
        Gauge("xapi_db_history_bytes", "Bytes of the history on disk", registry=registry).set_function(
            lambda: self.history.bytes
        )
        Gauge("xapi_db_history_dropped", "Changes that the history has missed", registry=registry).set_function(
            lambda: self.history.dropped
        )

    async def _publish(self, deltas: Sequence[contract.Delta]) -> None:
        self._commits.inc(len(deltas))
        kinds = {(change.cls, type(change)): None for delta in deltas for change in delta.changes}
        keys = tuple([f"db.{cls}.{_KIND[kind]}" for cls, kind in kinds])
        await self._service.bus.publish(contract.DELTA, contract.Deltas.of(deltas), also=keys)

    async def transact(self, request: contract.Transact) -> contract.Committed:
        context = current.get()
        try:
            return await self.stand.transact(request, context)
        except Exception as error:
            if getattr(error, "code", "") == "DB_CONFLICT":
                self._conflicts.inc()
            raise

    async def use_redo_log(self, request: contract.UseRedoLog) -> contract.Committed:
        """Raises CANNOT_ENABLE_REDO_LOG."""
        disks = self.redo_disk
        if disks is None:
            why = f"the redo log of this pool is chosen by its configuration: {self.log.kind}"
            raise ApiError("CANNOT_ENABLE_REDO_LOG", why)
        return await self.stand.perform(lambda: disks.use(request))

    async def status(self, _: msgspec.Struct) -> contract.DbStatus:
        mirror = self.log if isinstance(self.log, MirroredRedoLog) else None
        return contract.DbStatus(
            term=self.store.term,
            generation=self.store.generation,
            durable=self.committer.durable,
            rows=self.store.count(),
            log_bytes=self.log.bytes,
            syncs=self.log.syncs,
            commits=self.committer.commits,
            redo_log=self.log.kind,
            healthy=self.committer.healthy,
            host=self.rows.host,
            standbys=self.stand.standbys(),
            degraded=self.stand.degraded,
            unmerged=self.stand.unmerged(),
            redo_log_disk="" if mirror is None or mirror.path is None else str(mirror.path),
            redo_log_disk_state="" if mirror is None or mirror.path is None else mirror.state,
            read_from="" if mirror is None else mirror.read_from,
        )

    async def restore_part(self, request: contract.RestorePart) -> Empty:
        return await self.stand.perform(lambda: self.restores.part(request))

    async def restore(self, request: contract.Restore) -> contract.Committed:
        return await self.stand.perform(lambda: self.restores.restore(request))

    async def seed(self) -> None:
        """Creates the pool described by the seed file, once, in one transaction."""
        if self.store.tables["pool"].rows or not self._options.seed:
            return
        changes = seed.changes(seed.load(Path(self._options.seed)))
        await self.committer.transact(contract.Transact(changes=changes), request_id=f"seed-{uuid.uuid4()}")
        log.info("created the pool", extra={"rows": self.store.count()})

    async def checkpoints(self) -> None:
        """Writes all rows anew when the log has grown enough; a forked child does it, no transaction waits."""
        while True:
            await asyncio.sleep(1.0)
            if not self.log.roomy and self.committer.healthy:
                await self.checkpoint()

    async def _make_room(self) -> bool:
        if self.redo_disk is not None and self.redo_disk.is_full:
            return await self.redo_disk.make_room()
        return await self._checkpoints.write_between()

    async def checkpoint(self) -> bool:
        async with self.writing:
            return await self._checkpoints.write()

    async def health(self) -> None:
        """Tells people when the log fails and when it works again, which it is asked now and then."""
        host = self._service.hosts[0].name if self._service.hosts else ""
        alerts = HealthAlerts(self._service.bus, self.store, self.log.kind, host)
        while True:
            try:
                async with asyncio.timeout(None if self.committer.healthy else PROBE):
                    news = await self._told.get()
            except TimeoutError:
                await self.committer.try_again()
                continue
            await alerts.tell(*news)

    async def flush(self) -> None:
        """After the last transaction: the preferred file of `db.conf`."""
        if not self.stand.abandoned:
            await self.flusher.close()

    async def close(self) -> None:
        """After the last transaction: all rows in a checkpoint, so that the next start has nothing to replay."""
        if not self.stand.abandoned:
            await self.checkpoint()
        await self.committer.wait_durable(self.store.generation)  # whoever waits for a commit gets its answer
        await self._checkpoints.close()
        await self.history.close(self.store.generation, self.store.term)


_KIND = {contract.RowCreated: "add", contract.RowModified: "mod", contract.RowDeleted: "del"}


async def setup(service: Service, disk: Disk | None = None, boot: Callable[[], str] = boot_id) -> None:
    """`disk`, `boot`: of the machine; tests put others in their place."""
    lock = StateLock(service.state_dir)
    lock.take()
    options = service.options(Options)
    database = Database(service, options, disk, boot, await _redo_disk(service, options, disk))

    async def unlock() -> None:
        lock.release()

    service.on_stop(unlock)
    service.spawn(database.committer.run(), "commit")
    service.spawn(database.history.run(database.store.generation, database.store.term), "history")
    service.spawn(database.checkpoints(), "checkpoints")
    service.spawn(database.health(), "health")
    service.spawn(database.flusher.run(), "flush")
    if database.redo_disk is not None:
        service.spawn(database.redo_disk.run(), "redo log on a disk")
    await database.stand.serve()
    await service.serve(contract.TRANSACT, database.transact)
    await service.serve(contract.SNAPSHOT, database.snapshots.page)
    await service.serve(contract.RESTORE_PART, database.restore_part)
    await service.serve(contract.RESTORE, database.restore)
    await service.serve(contract.DB_STATUS, database.status)
    await service.serve(contract.USE_REDO_LOG, database.use_redo_log)
    await service.serve(HISTORY, database.history.page)
    service.spawn(database.stand.run(), "standing")
    await database.stand.settled.wait()
    service.details.update(term=str(database.store.term), pool=_pool_name(database.store), pid=str(os.getpid()))

    service.on_stop(database.flush)
    service.on_stop(database.close)
    service.on_stop(database.stand.close)


async def _redo_disk(service: Service, options: Options, disk: Disk | None) -> Path | None:
    """Where the disk is that the redo log is on as well, for a process that was primary, once the storage service of
    this host has it attached.
    """
    file = KeptFile(service.state_dir, disk)
    kept = file.kept
    if options.redo_log != "file" or not service.hosts or not file.is_of(service.config.pool):
        return None
    if kept.redo_log is None or kept.role != "primary":
        return None
    own = service.hosts[0].uuid
    peers = Peers(service.bus)
    has_rows = next((service.state_dir / "redo").glob("redo-*.log"), None) is not None
    return await at_start(service.bus, own, kept.redo_log, has_rows, peers.somebody_reigns)


def may_be_primary(kept: Kept, role: str, role_file: str) -> bool:
    """Of a process that starts: what it was told last counts; else what its host is. Raises `ConfigError`."""
    if role not in ("primary", "standby"):
        raise ConfigError(f"option role must be primary or standby, not {role!r}")
    if kept.role:
        return kept.role == "primary"
    return host_role.read(Path(role_file)).is_coordinator if role_file else role == "primary"


def put_aside(folder: Path, kept: KeptFile) -> None:
    """This host was in another pool: what it holds of that one's database is not this one's. Raises `OSError`."""
    redo = folder / "redo"
    if redo.exists():
        redo.rename(folder / f"redo-of-{kept.kept.pool}-{int(time.time())}")
    kept.save(role="", promised=0, lineage=[], hosts=[], pool="", redo_log=None)


def _pool_name(store: Store) -> str:
    return next((str(row.fields["uuid"]) for row in store.tables["pool"].rows.values()), NULL)
