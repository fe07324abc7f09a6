"""Group commit: one write and one fdatasync for all that waits.

A transaction is applied to the rows at once, so the next one is decided on top of it, but it is answered and published
only when its record is durable. While a write is in flight, what arrives joins the next batch, which is published as a
whole and then answered. Order is kept for all: a volatile transaction (sessions, tasks) needs no sync, yet waits for
the durable ones before it, because followers apply deltas in order.

A log that cannot be written: by the policy `refuse` what it could not take is taken back and its callers are told; by
`continue` it is acknowledged all the same, and the log is used again once a checkpoint holds what it has missed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol, TypeVar

from services.db.health import Pauses, Policy
from services.db.recovery import RESERVE
from services.db.redo.interface import Entry, LogFull, LogRecord, RedoLog, RedoLogError, Uncertain, entry
from services.db.transaction import inverse, persistent_part, resolve
from shared.bus.context import current
from shared.contracts.db import Committed, Delta, RowChange, Transact
from shared.errors import ApiError, DatabaseConflict, internal_error
from shared.store import Store, Touched

log = logging.getLogger("db.commit")

REQUESTS: Final = 20_000
"""Finished request ids remembered (and up to a sixteenth more), so that a repeated request is not applied twice."""

MESSAGE: Final = 1024 * 1024
"""Bytes of records that are published in one message, but for a single one that is longer."""

MOMENT: Final = 0.001
"""Seconds that the loop itself waits for the write of a commit that is alone, while the disk is that quick: two changes
of threads by way of the loop take as long as a sync. One that takes longer is waited for as all others are.
"""

SLOW: Final = 5.0
"""Seconds of a single write after which people are told that the log does not answer. It is waited for all the same:
nobody knows yet whether it has the commits.
"""

Result = TypeVar("Result")

Then = Callable[[], None]


class Observer(Protocol):
    """Hears of every transaction; it must not block, raise, or change anything that it is shown."""

    def applied(self, store: Store, delta: Delta, undo: Sequence[RowChange], touched: Sequence[Touched]) -> Then | None:
        """The rows are as the delta leaves them, `undo` takes it back. In the context of who asked for it.

        Returns what is to be called when it has been answered; if it is taken back, that never happens.
        """
        ...

    def replaced(self, store: Store) -> None:
        """Other rows, durably, are in the place of all that were."""
        ...


class _NotTried(RedoLogError):
    """It is too early to try the log again."""


@dataclass(slots=True)
class _Pending:
    delta: Delta
    undo: list[RowChange]
    touched: list[Touched]
    entry: Entry
    durable: bool
    request: str
    done: asyncio.Future[Committed]
    then: Then | None = None
    followed: bool = False
    """It is another process's commit."""
    again: list[asyncio.Future[Committed]] = field(default_factory=list)
    """Of those who have sent the same request once more: who was first may have gone."""

    def settle(self, committed: Committed) -> None:
        for done in (self.done, *self.again):
            if not done.done():
                done.set_result(committed)

    def fail(self, error: ApiError) -> None:
        for done in (self.done, *self.again):
            if not done.done():
                done.set_exception(error)
                done.exception()  # its caller may have gone

    def cancel(self) -> None:
        for done in (self.done, *self.again):
            done.cancel()


class Committer:
    """Applies transactions to `store` and makes them durable in `redo_log`.

    `publish` is awaited for all durable deltas, in order, before their transactions are answered. `on_health` hears
    when the log fails (with the reason) and when it is well again. `make_room` writes a checkpoint between two writes,
    and returns whether it counts.
    """

    def __init__(
        self,
        store: Store,
        redo_log: RedoLog,
        publish: Callable[[Sequence[Delta]], Awaitable[None]],
        policy: Policy = "refuse",
        on_health: Callable[[bool, str], None] | None = None,
    ) -> None:
        self.store = store
        self.durable = store.generation
        self.commits = 0
        self.healthy = True
        self.why = ""
        self.taken_back = 0
        self.make_room: Callable[[], Awaitable[bool]] | None = None
        self.observer: Observer | None = None
        self._log = redo_log
        self._publish = publish
        self._policy = policy
        self._on_health = on_health
        self._slow = False
        self._quick = True
        """The last write that was waited for took no more than a moment."""
        self._pauses = Pauses()
        self._waiting: list[_Pending] = []
        self._requests: dict[str, int] = {}
        """Oldest first. Copied before each fork, while nobody is served: 0.2 ms, and 3 of an OrderedDict."""
        self._running: dict[str, _Pending] = {}
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="redo-log")
        self._progress = asyncio.Event()
        self._boundary: list[tuple[Callable[[], Awaitable[object]], asyncio.Future[object]]] = []
        self._alone: asyncio.Future[None] | None = None
        """While somebody has the rows to himself; transactions wait for its end."""
        self._last_durable = store.generation
        self._refused = 0
        """Generations that the log was offered, and that nobody ever sees: the next commit's is above them."""

    def remember(self, requests: Iterable[tuple[str, int]]) -> None:
        """Request ids that were committed before (from the log)."""
        for request, generation in requests:
            self._requests[request] = generation
        if (many := len(self._requests) - REQUESTS) > REQUESTS // 16:
            self._requests = dict(islice(self._requests.items(), many, None))

    def knows(self, request: str) -> bool:
        """Whether it was committed, or is about to be."""
        return request in self._requests or request in self._running

    @property
    def requests(self) -> dict[str, int]:
        return self._requests.copy()

    @property
    def requests_in_rows(self) -> dict[str, int]:
        """With those whose commits are applied, and not durable yet."""
        return self.requests | {request: pending.delta.generation for request, pending in self._running.items()}

    @property
    def last_persistent(self) -> int:
        """Generation of the newest commit that a restart of the machine must not lose, durable or not yet."""
        return self._last_durable

    async def transact(
        self, request: Transact, *, request_id: str = "", task: str = "", session: str = ""
    ) -> Committed:
        """Applies and waits until durable. Raises what `resolve` raises, or INTERNAL_ERROR when the log cannot be
        written.
        """
        replaced = self._alone is not None and await self._others_turn()
        if request_id:
            if request_id in self._requests:
                return Committed(generation=self._requests[request_id], term=self.store.term)
            if (running := self._running.get(request_id)) is not None:
                again: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
                running.again.append(again)
                return await again
        if replaced:
            raise DatabaseConflict(-1, "pool", "", "")
        changes = resolve(self.store, request)
        if not changes:
            await self.wait_durable(self.store.generation)
            return Committed(generation=self.store.generation, term=self.store.term)
        pending = self._apply(changes, request_id, task, session)
        self._observe(pending)
        if request_id:
            self._running[request_id] = pending
        self._waiting.append(pending)
        self._work.set()
        return await pending.done

    def _apply(self, changes: list[RowChange], request_id: str, task: str, session: str) -> _Pending:
        store = self.store
        delta = Delta(
            term=store.term,
            generation=store.generation + self._refused + self._log.generations(changes),
            previous=store.generation,
            changes=changes,
            task=task,
            session=session,
            request=request_id,
            call=current.get().call,
        )
        self._refused = 0
        return self._put(delta)

    def follow(self, delta: Delta) -> asyncio.Future[Committed]:
        """Another process's commit, which comes after ours: applied as it is, and made durable like one of our own.

        Done with INTERNAL_ERROR when it cannot be: then the rows are as before, whatever the policy is.
        """
        pending = self._put(delta)
        pending.followed = True
        self._observe(pending)
        self._waiting.append(pending)
        self._work.set()
        return pending.done

    def _put(self, delta: Delta) -> _Pending:
        """Into the rows, and ready for the log."""
        store, changes = self.store, delta.changes
        durable = persistent_part(store, changes) or delta.generation - self._last_durable >= RESERVE
        record = LogRecord(
            generation=delta.generation,
            term=delta.term,
            changes=changes,
            request=delta.request,
            durable=durable,
            task=delta.task,
            session=delta.session,
            call=delta.call,
        )
        logged = entry(record, delta.previous)
        undo = inverse(store, changes)
        touched = store.apply(delta)
        if durable:
            self._last_durable = delta.generation
        done: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        return _Pending(delta, undo, touched, logged, durable, delta.request, done)

    def _observe(self, pending: _Pending) -> None:
        if self.observer is not None:
            pending.then = self.observer.applied(self.store, pending.delta, pending.undo, pending.touched)

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

    async def _others_turn(self) -> bool:
        """Whether other rows may have taken the place of those that the caller has decided on."""
        term = self.store.term
        while self._alone is not None:
            await asyncio.shield(self._alone)
        return self.store.term != term

    async def take_over(self, rows: Store, request_id: str) -> None:
        """Goes on with other rows, whose checkpoint is durable. Only for who is `alone`."""
        self.store.become(rows)
        self.durable = self._last_durable = rows.generation
        if self.observer is not None:
            self.observer.replaced(self.store)
        if request_id:
            self.remember([(request_id, rows.generation)])
        try:
            await self.in_log_thread(self._log.begin, rows.generation, rows.term)
        except RedoLogError as error:
            self._fail(error)  # the next transaction tries again

    async def enter_term(self, term: int, skip: int) -> None:
        """What is committed from here on is of that term; `skip` generations before it are left out.

        Raises `RedoLogError`: then it is as before.
        """
        async with self.alone():
            generation = self.store.generation + skip
            await self.in_log_thread(self._log.begin, generation, term)
            self.store.generation, self.store.term = generation, term
            self.durable = self._last_durable = generation

    async def in_log_thread(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Runs what uses the log in its thread: between two appends when called there."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def try_again(self) -> None:
        """Sees whether a log that failed can be used again, though nobody has anything to write."""
        await self.at_boundary(self._revive)

    async def _revive(self) -> None:
        if self.healthy:
            return
        try:
            await self._make_ready()
        except RedoLogError as error:
            self._fail(error)
        else:
            self._well()

    async def at_boundary(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """Runs `action` while no write is in flight: at once, or between two batches, which wait for its end."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._boundary.append((action, done))  # type: ignore[arg-type]
        self._work.set()
        return await done

    async def run(self) -> None:
        """The commit loop; ends when cancelled."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while self._waiting or self._boundary:
                    while self._boundary:
                        await self._act(*self._boundary.pop(0))
                    batch, self._waiting = self._waiting, []
                    if batch:
                        await self._write(batch)
        finally:
            for pending in self._waiting:
                pending.cancel()
            for _, done in self._boundary:
                done.cancel()
            self._thread.shutdown(wait=True)

    async def _act(self, action: Callable[[], Awaitable[object]], done: asyncio.Future[object]) -> None:
        if done.cancelled():
            return
        try:
            result = await action()
        except Exception as error:
            if done.cancelled():
                log.error("a step between two writes failed: %s", error)
            else:
                done.set_exception(error)
        except asyncio.CancelledError:
            done.cancel()
            raise
        else:
            if not done.cancelled():
                done.set_result(result)

    async def _write(self, batch: list[_Pending]) -> None:
        try:
            await self._keep(batch)
        except RedoLogError as error:
            self._fail(error)
            if self._policy == "continue" and not batch[0].followed:
                await self._answer(batch)
            elif isinstance(error, Uncertain):
                log.critical("%s; starting anew, which tells", error)
                os._exit(1)
            else:
                later, self._waiting = self._waiting, []
                self._take_back(batch + later, error)
        else:
            self._well()
            await self._answer(batch)
        self._progress.set()
        self._progress = asyncio.Event()

    async def _make_ready(self) -> None:
        """Of a log that has failed. Where commits went on without it, it gets all rows. Raises `RedoLogError`."""
        if self._policy == "continue" and not self._pauses.over:
            raise _NotTried(self.why)
        await self._watched(self._log.begin, self.durable, self.store.term)
        if self._policy == "continue":
            await self._fill()

    async def _keep(self, batch: list[_Pending]) -> None:
        """Raises `RedoLogError`."""
        entries = [pending.entry for pending in batch]
        if not self.healthy:
            await self._make_ready()
        if not any(pending.durable for pending in batch):
            self._log.append(entries, False)
            return
        try:
            await self._append(entries)
        except LogFull as full:
            log.warning("%s: a checkpoint first", full)
            await self._fill()
            try:
                await self._watched(self._log.append, entries, True)
            except RedoLogError as error:
                raise Uncertain(f"the checkpoint that made room holds what cannot be written: {error}") from error

    async def _append(self, entries: list[Entry]) -> None:
        if len(entries) > 1 or not self._quick:
            begun = time.monotonic()
            await self._watched(self._log.append, entries, True)
            self._quick = time.monotonic() - begun < MOMENT
            return
        writing = self._thread.submit(self._log.append, entries, True)
        concurrent.futures.wait((writing,), MOMENT)
        if writing.done():
            writing.result()
        else:
            self._quick = False
            await self._told_if_slow(asyncio.wrap_future(writing))

    async def _fill(self) -> None:
        if self.make_room is None or not await self.make_room():
            raise RedoLogError("there is no room in the redo log, and no checkpoint could be written")

    async def _watched(self, work: Callable[..., None], *arguments: object) -> None:
        """In the log's thread; people hear when it takes long."""
        await self._told_if_slow(self.in_log_thread(work, *arguments))

    async def _told_if_slow(self, step: Awaitable[None]) -> None:
        timer = asyncio.get_running_loop().call_later(SLOW, self._say_slow)
        try:
            await step
        finally:
            timer.cancel()

    def _say_slow(self) -> None:
        if not self._slow and self.healthy:
            self._slow = True
            log.critical("the redo log has not answered for %.0f s: commits wait for it", SLOW)
            self._tell(False, f"no answer for {SLOW:.0f} s")

    def _fail(self, error: RedoLogError) -> None:
        if isinstance(error, _NotTried):
            return
        self._pauses.failed()
        if self.healthy:
            what = "are acknowledged without it" if self._policy == "continue" else "are refused until it can be"
            log.critical("%s: changes %s", error, what)
            if not self._slow:
                self._tell(False, str(error))
        self.healthy, self.why, self._slow = False, str(error), False

    def _well(self) -> None:
        self._pauses.succeeded()
        if not self.healthy or self._slow:
            log.warning("the redo log can be written again")
            self._tell(True, "")
        self.healthy, self.why, self._slow = True, "", False

    def _tell(self, healthy: bool, why: str) -> None:
        if self._on_health is not None:
            self._on_health(healthy, why)

    async def _answer(self, batch: list[_Pending]) -> None:
        for part in _messages(batch):
            deltas = [pending.delta for pending in part]
            self.durable = deltas[-1].generation
            self.commits += len(part)
            await self._publish(deltas)
            self.remember([(pending.request, pending.delta.generation) for pending in part if pending.request])
            for pending in part:
                self._running.pop(pending.request, None)
                pending.settle(Committed(generation=pending.delta.generation, term=pending.delta.term))
                if pending.then is not None:
                    pending.then()

    def _take_back(self, batch: list[_Pending], error: RedoLogError) -> None:
        """A commit that is not durable never happened: rows go back, callers are told. Generations are not reused."""
        self.taken_back += 1
        store = self.store
        for pending in reversed(batch):
            store.apply(
                Delta(term=store.term, generation=store.generation, previous=store.generation, changes=pending.undo)
            )
            _as_before(store, pending.touched)
            self._running.pop(pending.request, None)
            pending.fail(internal_error(f"not saved, nothing changed: {error}"))
        before = batch[0].delta.previous
        if not batch[0].followed:
            self._refused = store.generation - before
        store.generation = before


def _messages(batch: list[_Pending]) -> Iterator[list[_Pending]]:
    """The commits that are published together: as many as fit into a message."""
    part: list[_Pending] = []
    size = 0
    for pending in batch:
        size += len(pending.entry.frame)
        if part and size > MESSAGE:
            yield part
            part, size = [], len(pending.entry.frame)
        part.append(pending)
    yield part


def _as_before(store: Store, touched: list[Touched]) -> None:
    """Rows that are what they were also were changed when they were: followers decide on that, and never saw more."""
    for item in touched:
        row = store.find(item.cls, item.ref)
        if row is not None and item.kind != "add":
            row.created, row.modified, row.written = item.row.created, item.before, item.written
