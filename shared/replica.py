"""A local copy of the database's rows that follows every commit: reads never cross the bus.

The replica subscribes to deltas, fetches a snapshot, and applies what follows it. After a gap or a reconnect it asks
for the commits since its own position, which the database remembers for a while: its watchers see each of them as if
nothing had happened. A new term that goes on from that position is no gap at all.

A snapshot is fetched anew only when the commits are no longer known, or when the rows have a different history now (a
restore, a promotion that left some commits out). Watchers then get the difference between the two states, so they
never miss a change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from shared import garbage
from shared.bus.context import NO_TERM, CallContext
from shared.bus.contract import Empty
from shared.bus.interface import Bus, BusError
from shared.contracts.db import (
    CHANGES_SINCE,
    DB_STATUS,
    DELTA,
    SNAPSHOT,
    Delta,
    Deltas,
    Position,
    SnapshotRequest,
    TermStart,
)
from shared.errors import ApiError
from shared.lineage import Lineage
from shared.store import Store, Touched

log = logging.getLogger("replica")

OVERDUE = 2.0
"""Seconds after which a commit that was answered and has not arrived is taken for lost."""

CHECK = 5.0
"""Seconds between two questions how far the database is."""

PART = 200
"""Rows of a snapshot, or commits that were missed, that are taken in before others get their turn."""

QUIET = 1.0
"""Seconds that the database may take to answer before the log says that it is waited for."""

ANY_TERM = CallContext(term=NO_TERM)
"""Of questions that a database of a later term answers as well: that is how one hears of it."""

Watcher = Callable[[list[Touched], Delta | None], None]
"""Called after every commit with the rows it touched, and the delta (None after a new snapshot). It must not block."""


class Replica:
    """`store` is replaced by a new object when a snapshot was needed: never keep it across an await.

    `resyncs`: snapshots fetched. `resumes`: how often the commits that were missed were enough.
    """

    def __init__(self, bus: Bus) -> None:
        self.store = Store()
        self.resyncs = 0
        self.resumes = 0
        self._bus = bus
        self.lineage = Lineage()
        """How the terms that led to these rows followed each other, as far as it is known here."""
        self._watchers: list[Watcher] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._early: list[Delta] = []
        self._syncing = True
        self._announced = 0
        """Generation the database was at when it was last asked."""
        self._heard = time.monotonic()
        """When the database said something for the last time."""
        self._new_rows = 0
        """That have come since the collector of garbage was last told of them."""
        self._wanted = asyncio.Event()
        self._ready = asyncio.Event()

    def watch(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.remove(watcher)

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    @property
    def silence(self) -> float:
        """Seconds since anything was heard of the database, which is asked every few seconds."""
        return time.monotonic() - self._heard

    @property
    def position(self) -> Position:
        """What a decision on these rows was made on."""
        store, known = self.store, self.lineage
        return Position(
            term=store.term, generation=store.generation, host=known.host if known.term == store.term else ""
        )

    async def wait_ready(self) -> None:
        """Until the first snapshot is in."""
        await self._ready.wait()

    async def run(self) -> None:
        """Follows the database; ends when cancelled."""
        subscription = await self._bus.subscribe(DELTA, self._on_deltas)
        self._bus.on_reconnect(self._on_reconnect)
        self._wanted.set()
        try:
            while True:
                try:
                    async with asyncio.timeout(CHECK):
                        await self._wanted.wait()
                except TimeoutError:
                    await self._check()
                    continue
                self._wanted.clear()
                await self._sync()
        finally:
            with suppress(BusError):
                await subscription.cancel()

    async def _check(self) -> None:
        """A delta that was lost, and that no other has followed, shows in the database's own count."""
        try:
            status = await self._bus.call(DB_STATUS, Empty(), context=ANY_TERM)
        except ApiError:
            return  # it is away; whoever needs it waits for it
        self._heard = time.monotonic()
        store = self.store
        if status.term != store.term:
            self.resync(f"the database is at term {status.term}, not {store.term}")
        elif self._announced > store.generation:
            self.resync(f"generation {self._announced} has not arrived")
        self._announced = status.durable

    async def _on_reconnect(self) -> None:
        self.resync("the connection to the bus was lost")

    def resync(self, why: str) -> None:
        if not self._syncing:
            log.info("asking for what was missed: %s", why)
        self._syncing = True
        self._wanted.set()

    def _on_deltas(self, deltas: Deltas, _: str) -> None:
        self._heard = time.monotonic()
        for delta in deltas.each():
            if self._syncing:
                self._early.append(delta)
            else:
                self._follow(delta)

    def _follow(self, delta: Delta) -> None:
        store = self.store
        if delta.term < store.term or (delta.term == store.term and delta.generation <= store.generation):
            return
        goes_on = delta.term == store.term or (delta.begins is not None and delta.begins.after == store.term)
        if not goes_on or delta.previous != store.generation:
            self._early.append(delta)
            self.resync(f"generation {delta.generation} of term {delta.term} does not follow {store.generation}")
            return
        self._apply(delta)

    def _apply(self, delta: Delta) -> None:
        """One that follows our rows, maybe in a new term."""
        store = self.store
        if delta.begins is not None:
            self._begin(delta.begins)
        touched = store.apply(delta)
        self._new_rows += sum(item.kind == "add" for item in touched)
        if self._new_rows >= garbage.MANY:
            garbage.keep(self._new_rows)
            self._new_rows = 0
        self._tell(touched, delta)

    def _begin(self, start: TermStart) -> None:
        self.lineage = self.lineage.began(start)
        if start.forced:
            self._bus.observe_term(start.term)

    def _tell(self, touched: list[Touched], delta: Delta | None) -> None:
        for watcher in self._watchers:
            try:
                watcher(touched, delta)
            except Exception:
                log.exception("a watcher of the replica failed")
        self._wake()

    def _wake(self) -> None:
        """Those whose commit is there."""
        if self._waiters:
            generation = self.store.generation
            for wanted, future in self._waiters:
                if wanted <= generation and not future.done():
                    future.set_result(None)
            self._waiters = [(wanted, future) for wanted, future in self._waiters if not future.done()]

    async def _sync(self) -> None:
        """Brings the rows to where the database is; tries again until it succeeds."""
        delay = 0.05
        # A request waits for a database that is not there, and says nothing meanwhile.
        telling = asyncio.get_running_loop().call_later(QUIET, log.warning, "waiting for the database: no answer yet")
        try:
            while True:
                try:
                    if not await self._resume():
                        self._replace(await self._fetch())
                    break
                except (BusError, ApiError) as error:
                    log.warning("the database does not say yet what was missed: %s", error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 2.0)
        finally:
            telling.cancel()
        self._heard = time.monotonic()
        self._syncing = False
        self._ready.set()
        self._wake()
        early, self._early = self._early, []
        for delta in early:
            if self._syncing:
                self._early.append(delta)
            else:
                self._follow(delta)

    async def _resume(self) -> bool:
        """Applies the commits since our position, as if they came now; false when they cannot be had."""
        while self._ready.is_set():
            try:
                answer = await self._bus.call(CHANGES_SINCE, self.position, timeout=60, context=ANY_TERM)
            except BusError:
                raise
            except ApiError as error:
                log.warning("the database does not tell what was missed: %s", error)
                return False
            if answer.deltas is None:
                return False
            for count, delta in enumerate(answer.deltas):
                if delta.previous != self.store.generation:
                    return False
                self._apply(delta)
                if count % PART == PART - 1:
                    await asyncio.sleep(0)
            if self.store.generation >= answer.at.generation or not answer.deltas:
                for start in answer.starts:
                    self._begin(start)
                self.store.term = answer.at.term
                self.resumes += 1
                return True
        return False

    def _replace(self, fresh: Store) -> None:
        old, self.store = self.store, fresh
        self.resyncs += 1
        self._tell(_difference(old, fresh), None)

    async def _fetch(self) -> Store:
        """The rows of a new snapshot. They are taken in part by part: whoever uses the old ones is served meanwhile."""
        store = Store()
        with garbage.paused():
            page = await self._bus.call(SNAPSHOT, SnapshotRequest(), timeout=60, context=ANY_TERM)
            lineage = page.lineage
            while True:
                for begin in range(0, len(page.rows), PART):
                    store.add(page.rows[begin : begin + PART])
                    await asyncio.sleep(0)
                if page.page + 1 >= page.pages:
                    break
                request = SnapshotRequest(snapshot=page.snapshot, page=page.page + 1)
                page = await self._bus.call(SNAPSHOT, request, timeout=60, context=ANY_TERM)
            store.complete(page.generation, page.term)
        self.lineage = Lineage()
        for start in lineage:
            self._begin(start)
        garbage.keep(store.count())
        self._new_rows = 0
        return store

    async def wait_generation(self, generation: int, timeout: float = 30.0) -> None:
        """Until the replica has that commit: a writer reads its own writes. Raises `BusError` after `timeout` seconds.

        A commit that is overdue was lost on its way: then a snapshot brings it.
        """
        if await self.reaches(generation, min(OVERDUE, timeout)):
            return
        self.resync(f"generation {generation} is overdue")
        if not await self.reaches(generation, timeout):
            raise BusError("INTERNAL_ERROR", f"the rows do not follow the database: no generation {generation}")

    async def reaches(self, generation: int, timeout: float) -> bool:
        """Waits for that commit at most `timeout` seconds. Returns whether it is there."""
        if self.store.generation >= generation and not self._syncing:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((generation, future))
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            return False
        return True


def _difference(old: Store, new: Store) -> list[Touched]:
    """What changed between two states; deletions become tombstones of the new one."""
    touched: list[Touched] = []
    for cls, table in new.tables.items():
        before = old.tables[cls].rows
        table.tombstones.extend(old.tables[cls].tombstones)
        for ref, row in before.items():
            if ref not in table.rows:
                table.tombstones.append((row.created, new.generation, ref))
                touched.append(Touched(cls, ref, "del", row))
        for ref, row in table.rows.items():
            known = before.get(ref)
            if known is None:
                touched.append(Touched(cls, ref, "add", row))
            elif known.modified != row.modified:
                touched.append(Touched(cls, ref, "mod", row))
            else:
                row.fragments = known.fragments
    return touched
