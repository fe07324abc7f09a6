"""Group commit: one write and one fdatasync for all that waits.

A transaction is applied to the rows at once, so the next one is decided on top of it, but it is answered and published
only when its record is durable. While a write is in flight, what arrives joins the next batch. Order is kept for all: a
volatile transaction (sessions, tasks) needs no sync, yet waits for the durable ones before it, because followers apply
deltas in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import msgspec
import orjson

from services.db.redo_log import LogRecord, RedoLogError, encode
from services.db.transaction import inverse, persistent_part, resolve
from shared.contracts.db import Committed, Delta, RowChange, Transact
from shared.errors import DatabaseConflict, internal_error
from shared.store import Store, Touched

log = logging.getLogger("db.commit")

REQUESTS = 20_000
"""Finished request ids remembered, so that a repeated request is not applied twice."""

RESERVE = 500_000
"""A durable record is forced at least once in so many generations; a restart of the machine skips twice as many."""


class Log(Protocol):
    """What the committer needs of a redo log."""

    def append(self, records: bytes, sync: bool) -> None: ...

    def rotate(self, generation: int, term: int) -> None: ...


@dataclass(slots=True)
class _Pending:
    delta: Delta
    undo: list[RowChange]
    touched: list[Touched]
    record: bytes
    durable: bool
    request: str
    done: asyncio.Future[Committed]


class Committer:
    """Applies transactions to `store` and makes them durable in `redo_log`.

    `publish` is awaited for every durable delta, in order, before its transaction is answered.
    """

    def __init__(self, store: Store, redo_log: Log, publish: Callable[[Delta], Awaitable[None]]) -> None:
        self.store = store
        self.durable = store.generation
        self.commits = 0
        self.healthy = True
        self.why = ""
        self._log = redo_log
        self._publish = publish
        self._waiting: list[_Pending] = []
        self._requests: OrderedDict[str, int] = OrderedDict()
        self._running: dict[str, asyncio.Future[Committed]] = {}
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="redo-log")
        self._progress = asyncio.Event()
        self._boundary: list[Callable[[], None]] = []
        self._alone: asyncio.Future[None] | None = None
        """While somebody has the rows to himself; transactions wait for its end."""
        self.taken_back = 0
        self._last_durable = store.generation

    def remember(self, requests: Iterable[tuple[str, int]]) -> None:
        """Request ids that were committed before (from the log)."""
        for request, generation in requests:
            self._requests[request] = generation
        while len(self._requests) > REQUESTS:
            self._requests.popitem(last=False)

    @property
    def requests(self) -> dict[str, int]:
        return dict(self._requests)

    async def transact(
        self, request: Transact, *, request_id: str = "", task: str = "", session: str = ""
    ) -> Committed:
        """Applies and waits until durable. Raises what `resolve` raises, or INTERNAL_ERROR when the log cannot be
        written.
        """
        if self._alone is not None:
            await self._others_turn()
        if request_id:
            if request_id in self._requests:
                return Committed(generation=self._requests[request_id], term=self.store.term)
            if request_id in self._running:
                return await asyncio.shield(self._running[request_id])
        changes = resolve(self.store, request)
        if not changes:
            await self.wait_durable(self.store.generation)
            return Committed(generation=self.store.generation, term=self.store.term)
        pending = self._apply(changes, request_id, task, session)
        if request_id:
            self._running[request_id] = pending.done
        self._waiting.append(pending)
        self._work.set()
        return await asyncio.shield(pending.done)

    def _apply(self, changes: list[RowChange], request_id: str, task: str, session: str) -> _Pending:
        store = self.store
        delta = Delta(
            term=store.term,
            generation=store.generation + 1,
            previous=store.generation,
            changes=changes,
            task=task,
            session=session,
        )
        durable = persistent_part(store, changes) or delta.generation - self._last_durable >= RESERVE
        record = LogRecord(
            generation=delta.generation,
            term=delta.term,
            changes=changes,
            request=request_id,
            durable=durable,
            task=task,
            session=session,
        )
        body = encode(orjson.dumps(record, default=msgspec.to_builtins))
        undo = inverse(store, changes)
        touched = store.apply(delta)
        if durable:
            self._last_durable = delta.generation
        return _Pending(delta, undo, touched, body, durable, request_id, asyncio.get_running_loop().create_future())

    async def wait_durable(self, generation: int) -> None:
        """Until every commit up to `generation` is durable. Raises INTERNAL_ERROR if some of them were taken back."""
        taken_back = self.taken_back
        while self.durable < generation:
            await self._progress.wait()
            if self.taken_back != taken_back:
                raise internal_error(f"the redo log failed: {self.why}")

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """All that was applied is durable, and nothing is applied inside. Not re-entrant; raises INTERNAL_ERROR."""
        if self._alone is not None:
            raise RuntimeError("somebody has the rows already")
        over = self._alone = asyncio.get_running_loop().create_future()
        try:
            await self.wait_durable(self.store.generation)
            yield
        finally:
            self._alone = None
            over.set_result(None)

    async def _others_turn(self) -> None:
        """Raises DB_CONFLICT when other rows have taken the place of those that the caller has decided on."""
        term = self.store.term
        while self._alone is not None:
            await asyncio.shield(self._alone)
        if self.store.term != term:
            raise DatabaseConflict(-1, "pool", "", "")

    async def take_over(self, rows: Store, request_id: str) -> None:
        """Goes on with other rows, whose checkpoint is durable. Only for who is `alone`."""
        self.store.become(rows)
        self.durable = self._last_durable = rows.generation
        self.remember([(request_id, rows.generation)])
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._log.rotate, rows.generation, rows.term)
        except RedoLogError as error:
            self.healthy, self.why = False, str(error)  # the next transaction tries again

    def at_boundary(self, action: Callable[[], None]) -> None:
        """Calls `action` when no write is in flight, at once or between two batches. It must not block."""
        self._boundary.append(action)
        self._work.set()

    async def run(self) -> None:
        """The commit loop; ends when cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while self._waiting or self._boundary:
                    actions, self._boundary = self._boundary, []
                    for action in actions:
                        action()
                    batch, self._waiting = self._waiting, []
                    if batch:
                        await self._write(batch, loop)
        finally:
            for pending in self._waiting:
                pending.done.cancel()
            self._thread.shutdown(wait=True)

    async def _write(self, batch: list[_Pending], loop: asyncio.AbstractEventLoop) -> None:
        records = b"".join(pending.record for pending in batch)
        try:
            if not self.healthy:
                await loop.run_in_executor(self._thread, self._reopen, batch[0].delta)
            if any(pending.durable for pending in batch):
                await loop.run_in_executor(self._thread, self._log.append, records, True)
            else:
                self._log.append(records, False)
        except RedoLogError as error:
            later, self._waiting = self._waiting, []
            self._take_back(batch + later, error)
        else:
            if not self.healthy:
                self.healthy, self.why = True, ""
                log.warning("the redo log can be written again")
            await self._answer(batch)
        self._progress.set()
        self._progress = asyncio.Event()

    def _reopen(self, delta: Delta) -> None:
        self._log.rotate(delta.previous, delta.term)

    async def _answer(self, batch: list[_Pending]) -> None:
        for pending in batch:
            delta = pending.delta
            self.durable = delta.generation
            self.commits += 1
            await self._publish(delta)
            if pending.request:
                self.remember([(pending.request, delta.generation)])
                self._running.pop(pending.request, None)
            if not pending.done.done():
                pending.done.set_result(Committed(generation=delta.generation, term=delta.term))

    def _take_back(self, batch: list[_Pending], error: RedoLogError) -> None:
        """A commit that is not durable never happened: rows go back, callers are told. Generations are not reused."""
        if self.healthy:
            log.critical("%s: changes are refused until it can be", error)
        self.healthy, self.why = False, str(error)
        self.taken_back += 1
        store = self.store
        for pending in reversed(batch):
            store.apply(
                Delta(term=store.term, generation=store.generation, previous=store.generation, changes=pending.undo)
            )
            _as_before(store, pending.touched)
            self._running.pop(pending.request, None)
            if not pending.done.done():
                pending.done.set_exception(internal_error(f"not saved, nothing changed: {error}"))
                pending.done.exception()  # its caller may have gone
        # Followers that saw it in a snapshot, and those that did not, must both notice: the next delta fits neither.
        store.generation += 1
        self.durable = store.generation


def _as_before(store: Store, touched: list[Touched]) -> None:
    """Rows that are what they were also were changed when they were: followers decide on that, and never saw more."""
    for item in touched:
        row = store.find(item.cls, item.ref)
        if row is not None and item.kind != "add":
            row.created, row.modified = item.row.created, item.before
