"""The database process: holds all rows, changes them by transactions, publishes every commit."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from pathlib import Path

import msgspec
from prometheus_client import Counter, Gauge

from services.db import checkpoint, seed
from services.db.committer import RESERVE, Committer
from services.db.redo_log import FileRedoLog, LogRecord, Recovered, encode
from services.db.restores import Restores
from services.db.snapshots import Snapshots
from shared.bus.context import current
from shared.contracts import db as contract
from shared.service import Service
from shared.store import LINKS, NULL, Store

log = logging.getLogger("db")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`seed`: JSON file that describes the pool to create when there is no database yet (`services.db.seed`).

    `checkpoint_bytes`: how long the redo log may grow before all rows are written anew.
    """

    seed: str = ""
    checkpoint_bytes: int = 64 * 1024 * 1024


def boot_id() -> str:
    """Changes when the machine is started anew: what was not synced may be gone then."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def restore(found: Recovered, boot: str) -> Store:
    """The rows as the log tells them. After a restart of the machine volatile rows are gone and generations skip ahead,

    past any that were handed out without being written.
    """
    store = Store()
    store.load(found.rows, found.generation if not found.records else found.records[0].generation - 1, found.term)
    for record in found.records:
        store.apply(
            contract.Delta(
                term=record.term, generation=record.generation, previous=store.generation, changes=record.changes
            )
        )
    store.generation, store.term = found.generation, found.term
    if found.boot and found.boot != boot:
        store.generation += 2 * RESERVE
        store.apply(
            contract.Delta(
                term=store.term, generation=store.generation, previous=store.generation, changes=blank_volatile(store)
            )
        )
    return store


def blank_volatile(store: Store) -> list[contract.RowChange]:
    """Rows of non-persistent classes go, non-persistent fields become their type's empty value."""
    changes: list[contract.RowChange] = []
    for name, table in store.tables.items():
        if not table.cls.persist:
            changes += [contract.RowDeleted(cls=name, ref=ref) for ref in table.rows]
            continue
        volatile = [
            field for field in table.cls.fields.values() if not field.persist and not _derived(name, field.name)
        ]
        if volatile:
            fields = {field.name: field.type.empty() for field in volatile}
            changes += [contract.RowModified(cls=name, ref=ref, fields=fields) for ref in table.rows]
    return changes


def _derived(cls: str, field: str) -> bool:
    return field in LINKS[cls].derived


class Database:
    """The primary: its store, log and committer, and the handlers of its queue."""

    def __init__(self, service: Service, options: Options) -> None:
        self._service = service
        self._options = options
        self._boot = boot_id()
        self.log = FileRedoLog(service.state_dir / "redo", self._boot)
        began = time.monotonic()
        found = self.log.recover()
        self.store = restore(found, self._boot)
        self.store.term += 1
        self.log.rotate(self.store.generation, self.store.term)
        self.log.append(
            encode(msgspec.json.encode(LogRecord(generation=self.store.generation, term=self.store.term))), sync=True
        )
        self.committer = Committer(self.store, self.log, self._publish)
        self.committer.remember(found.requests.items())
        self.snapshots = Snapshots(self.store, self.committer)
        self.writing = asyncio.Lock()
        """Of those who write all rows to a file: one at a time."""
        self.restores = Restores(self.committer, self.log, self.writing, self._publish)
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

    async def _publish(self, delta: contract.Delta) -> None:
        self._commits.inc()
        keys = tuple({f"db.{change.cls}.{_KIND[type(change)]}": None for change in delta.changes})
        await self._service.bus.publish(contract.DELTA, delta, also=keys)

    async def transact(self, request: contract.Transact) -> contract.Committed:
        context = current.get()
        try:
            return await self.committer.transact(
                request, request_id=context.request, task=context.task, session=context.session
            )
        except Exception as error:
            if getattr(error, "code", "") == "DB_CONFLICT":
                self._conflicts.inc()
            raise

    async def status(self, _: msgspec.Struct) -> contract.DbStatus:
        return contract.DbStatus(
            term=self.store.term,
            generation=self.store.generation,
            durable=self.committer.durable,
            rows=self.store.count(),
            log_bytes=self.log.bytes,
            syncs=self.log.syncs,
            commits=self.committer.commits,
            redo_log="file",
            healthy=self.committer.healthy,
        )

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
            if self.log.segment_bytes >= self._options.checkpoint_bytes and self.committer.healthy:
                await self.checkpoint()

    async def checkpoint(self) -> None:
        async with self.writing:
            await checkpoint.write(self.store, self.log, self.committer)


_KIND = {contract.RowCreated: "add", contract.RowModified: "mod", contract.RowDeleted: "del"}


async def setup(service: Service) -> None:
    database = Database(service, service.options(Options))
    service.spawn(database.committer.run(), "commit")
    await database.seed()
    service.spawn(database.checkpoints(), "checkpoints")
    await service.serve(contract.TRANSACT, database.transact)
    await service.serve(contract.SNAPSHOT, database.snapshots.page)
    await service.serve(contract.RESTORE_PART, database.restores.part)
    await service.serve(contract.RESTORE, database.restores.restore)
    await service.serve(contract.DB_STATUS, database.status)
    # A new term with nothing in it: followers fetch a snapshot at once, whatever they have missed.
    store = database.store
    await service.bus.publish(
        contract.DELTA,
        contract.Delta(term=store.term, generation=store.generation, previous=store.generation, changes=[]),
    )
    service.details.update(term=str(database.store.term), pool=_pool_name(database.store), pid=str(os.getpid()))

    async def flush() -> None:
        await database.checkpoint()
        await database.committer.wait_durable(database.store.generation)  # whoever waits for a commit gets its answer

    service.on_stop(flush)


def _pool_name(store: Store) -> str:
    return next((str(row.fields["uuid"]) for row in store.tables["pool"].rows.values()), NULL)
