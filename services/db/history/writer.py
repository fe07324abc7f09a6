"""The thread that writes the history down: whatever happens to it, no transaction waits or fails."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from services.db.history import pace
from services.db.history.segments import Segments
from services.db.history.told import Commit, Teller
from shared.contracts.db_history import HistoryEntry

log = logging.getLogger("db.history")

GATHER: Final = 0.25
"""Seconds in which what comes is gathered before it is written."""
SYNC: Final = 1.0
"""Seconds after which what was written is on stable storage; a power failure may take so much."""
UPKEEP: Final = 60.0
"""Seconds between looks at the limits while nothing happens."""
BATCH: Final = 256
SLICE: Final = 8
"""Commits described before the event loop gets its turn."""
MOST_WAITING: Final = 20_000
"""Commits that wait to be written; more are dropped, so that a slow disk does not fill the memory."""

Item = Commit | HistoryEntry | Callable[[], None]
"""The last: called, in its turn, when all before it has been written or dropped."""


class Writer:
    """`start`, `hand`, `call` and `close` are for the event loop, the rest is of the thread."""

    def __init__(
        self, segments: Segments, teller: Teller, opened: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._segments = segments
        self._teller = teller
        self._clock = clock
        self._items: deque[Item] = deque()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._open = opened
        self._dirty = False
        self._synced = time.monotonic()
        self._complained = False
        self._losing = threading.Lock()
        self._lost: list[int] = []
        """Lowest and highest generation, and number, of the entries dropped since one was written; under the lock."""
        self._why = ""
        self.entries = 0
        self.dropped = 0

    # ---- the event loop's side

    def start(self) -> None:
        self._thread.start()

    def hand(self, item: Commit | HistoryEntry) -> None:
        items = self._items
        if len(items) >= MOST_WAITING:
            self._drop(item, "more is changed than can be written down")
            return
        items.append(item)
        if not self._wake.is_set():
            self._wake.set()

    def call(self, done: Callable[[], None]) -> None:
        """Calls it, in the thread, when all that was handed over before has been written or dropped."""
        self._items.append(done)
        self._hurry.set()
        self._wake.set()

    def close(self, patience: float) -> None:
        """Writes what is left; blocks, `patience` seconds at most."""
        self._closing = True
        self._hurry.set()
        self._wake.set()
        if self._thread.ident is None:
            return
        self._thread.join(patience)
        if self._thread.is_alive():
            log.error("the history's writer does not end; what it has not written is lost")

    # ---- the thread's

    def _run(self) -> None:
        while True:
            self._wake.wait(SYNC if self._dirty else UPKEEP)
            if not self._closing:
                self._hurry.wait(GATHER)
            self._wake.clear()
            self._hurry.clear()
            closing = self._closing
            self._write()
            self._look_after(closing)
            if closing and not self._items:
                self._segments.close()
                return

    def _write(self) -> None:
        batch: list[HistoryEntry] = []
        for item in pace.slowly(self._taken(), SLICE):
            if callable(item):
                batch = self._append(batch)
                item()
                continue
            entry = self._told(item)
            if entry is not None:
                batch.append(entry)
            if len(batch) >= BATCH:
                batch = self._append(batch)
        self._append(batch)

    def _taken(self) -> Iterator[Item]:
        while self._items:
            yield self._items.popleft()

    def _told(self, item: Commit | HistoryEntry) -> HistoryEntry | None:
        if isinstance(item, HistoryEntry):
            return item
        try:
            return self._teller.entry(item)
        except Exception as error:  # a commit that cannot be described must not end the history of all others
            log.exception("generation %d cannot be described", item.delta.generation)
            self._drop(item, f"{type(error).__name__}: {error}")
            return None

    def _append(self, batch: list[HistoryEntry]) -> list[HistoryEntry]:
        """What is left to write: nothing."""
        if not batch:
            return []
        try:
            if not self._open:
                self._segments.open()
                self._open = True
            gap = self._gap()
            self._segments.append([*gap, *batch])
        except OSError as error:
            for entry in batch:
                self._drop(entry, str(error))
            return []
        if gap:
            log.warning("the history is written again: %s", gap[0].note)
            with self._losing:
                self._lost = []  # should others have been dropped since the gap was told, they count as part of it
        self.entries += len(batch) + len(gap)
        self._dirty = True
        return []

    def _drop(self, item: Commit | HistoryEntry, why: str) -> None:
        generation = item.generation if isinstance(item, HistoryEntry) else item.delta.generation
        with self._losing:
            self.dropped += 1
            if self._lost:
                low, high, count = self._lost
                self._lost = [min(low, generation), max(high, generation), count + 1]
                return
            self._lost, self._why = [generation, generation, 1], why
        log.error("the history cannot be written, which nothing else waits for: %s", why)

    def _gap(self) -> list[HistoryEntry]:
        with self._losing:
            if not self._lost:
                return []
            low, high, count = self._lost
        note = f"{count} entries from generation {low} to {high} are missing: {self._why}"
        return [HistoryEntry(generation=high, term=0, time=self._clock(), kind="gap", note=note)]

    def _look_after(self, closing: bool) -> None:
        """Limits, and what was written made durable."""
        now = time.monotonic()
        try:
            if self._dirty and (closing or now - self._synced >= SYNC):
                self._synced, self._dirty = now, False
                self._segments.sync()
            self._segments.keep_limits(self._clock())
            self._complained = False
        except OSError as error:
            if not self._complained:
                log.warning("old history cannot be put away: %s", error)
            self._complained = True
