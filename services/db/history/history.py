"""The history of the database, as the database process has it: commits go in, pages of entries come out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from services.db.disk import Disk
from services.db.history import search
from services.db.history.segments import Segments
from services.db.history.told import Commit, Teller
from services.db.history.writer import Writer
from services.db.transaction import inverse
from shared.bus.context import current
from shared.contracts.db import Delta, RowChange, RowCreated
from shared.contracts.db_history import HistoryEntry, HistoryPage, HistoryRequest
from shared.errors import internal_error
from shared.logs import track_id
from shared.store import Store, Touched

log = logging.getLogger("db.history")

WRITTEN_PATIENCE: Final = 2.0
"""Seconds that a question waits until what was committed before it is written."""
CLOSE_PATIENCE: Final = 5.0
_REPLAYED: Final = "found in the redo log at the start: made before this time"


class History:
    """`limit`: bytes on disk; `days`: how old entries get. Either of them 0: nothing is recorded.

    Nothing in here raises towards a commit, and nothing waits for the disk.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        days: float,
        *,
        volatile: bool = False,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.on = limit > 0 and days > 0
        self.recorded = 0
        """Highest generation that was recorded before the start; 0 if nothing was."""
        self._clock = clock
        self._teller = Teller(volatile)
        self._segments = Segments(folder, limit, days, disk or Disk())
        self._writer = Writer(self._segments, self._teller, opened=self._opened(), clock=clock)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="history-search")
        self._closed = asyncio.Event()

    def _opened(self) -> bool:
        if not self.on:
            return False
        try:
            self.recorded = self._segments.open()
        except OSError as error:
            log.error("the history cannot be opened, which is tried again: %s", error)
            return False
        return True

    @property
    def entries(self) -> int:
        """Written since the start."""
        return self._writer.entries

    @property
    def dropped(self) -> int:
        return self._writer.dropped

    @property
    def bytes(self) -> int:
        return self._segments.bytes

    async def run(self, generation: int, term: int) -> None:
        """Writes until it is cancelled, or closed."""
        if not self.on:
            return
        self._tell("started", generation, term, "the database process began")
        self._writer.start()
        try:
            await self._closed.wait()
        finally:
            self._writer.close(CLOSE_PATIENCE)
            self._readers.shutdown(wait=False, cancel_futures=True)

    async def close(self, generation: int, term: int) -> None:
        """After the last commit. Nobody is told anything any more."""
        if self.on:
            self._tell("stopped", generation, term, "the database process ended")
            await asyncio.to_thread(self._writer.close, CLOSE_PATIENCE)
        self._closed.set()

    # ---- what the committer tells

    def applied(
        self, store: Store, delta: Delta, undo: Sequence[RowChange], touched: Sequence[Touched]
    ) -> Callable[[], None] | None:
        """Takes down who did it while the rows still say so. What is returned makes it history."""
        if not self.on or not self._teller.concerns(delta.changes):
            return None
        return partial(self._writer.hand, self._commit(store, delta, undo, touched, ""))

    def replayed(self, store: Store, delta: Delta) -> None:
        """Applies a commit that the redo log has. Those that were not yet written down when the process died, are now.

        After a restart of the machine it may change rows that are gone, of sessions and tasks.
        """
        if not self.recorded or delta.generation <= self.recorded or not self._teller.concerns(delta.changes):
            store.apply(delta)
            return
        there = [c for c in delta.changes if isinstance(c, RowCreated) or store.find(c.cls, c.ref) is not None]
        undo = inverse(store, there)
        touched = store.apply(delta)
        told = msgspec.structs.replace(delta, changes=there)
        self._writer.hand(self._commit(store, told, undo, touched, _REPLAYED))

    def _commit(
        self, store: Store, delta: Delta, undo: Sequence[RowChange], touched: Sequence[Touched], note: str
    ) -> Commit:
        context = current.get()
        rows = {item.ref: item.row.fields for item in touched}
        task = store.find("task", context.task or context.origin or delta.task)
        session = store.find("session", context.session or delta.session)
        return Commit(
            delta,
            undo,
            rows,
            self._clock(),
            context,
            task.fields if task is not None else None,
            session.fields if session is not None else None,
            note,
        )

    def replaced(self, store: Store) -> None:
        self.restored(store.generation, store.term, store.count())

    def restored(self, generation: int, term: int, rows: int) -> None:
        """Other rows are in the place of all that were."""
        if self.on:
            note = f"all rows were replaced by those of another database: {rows} rows"
            self._tell("restored", generation, term, note)

    def _tell(self, kind: str, generation: int, term: int, note: str) -> None:
        context = current.get()
        self._writer.hand(
            HistoryEntry(
                generation=generation,
                term=term,
                time=self._clock(),
                kind=kind,
                task=context.task or context.origin,
                call=context.call,
                session=track_id(context.session),
                user=context.user,
                note=note,
            )
        )

    # ---- what others ask

    async def written(self) -> None:
        """Returns when all that was committed before is written, or cannot be; after a while in any case."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def told() -> None:
            if not done.done():
                done.set_result(None)

        def in_thread() -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(told)

        self._writer.call(in_thread)
        await asyncio.wait({done}, timeout=WRITTEN_PATIENCE)

    async def page(self, request: HistoryRequest) -> HistoryPage:
        """Raises INVALID_VALUE; INTERNAL_ERROR if files cannot be read."""
        if not self.on:
            return HistoryPage(entries=[], recording=False)
        await self.written()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._readers, search.page, self._segments, request)
        except OSError as error:
            raise internal_error(f"the history cannot be read: {error}") from error
