"""Writes all rows to the files of `db.conf` while transactions go on: a forked child has its own copy of the memory.

A file gets its name only when every commit in it is durable. One that was taken back meanwhile would else come back
from the file, after a start that finds the redo log gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from services.db.child import NICE, Child
from services.db.committer import Committer
from services.db.disk import Disk
from services.db.outputs import dump_file, schedule
from services.db.outputs.conf import Block, preferred
from services.db.outputs.dump_file import Origin
from shared.database_dump.writer import moment, pieces
from shared.errors import ApiError
from shared.store import Store

log = logging.getLogger("db.outputs")


class FlushError(Exception):
    """The file is as before; the text says why."""


class Flusher:
    """`writing`: held while all rows are written to a file. `pool`: which this host is in, a uuid.

    `records`: what became of each file so far.
    """

    def __init__(
        self,
        committer: Committer,
        blocks: Sequence[Block],
        writing: asyncio.Lock,
        disk: Disk | None = None,
        pool: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.blocks = list(blocks)
        self.records = {block.path: schedule.begun(clock()) for block in blocks}
        self._committer = committer
        self._writing = writing
        self._disk = disk or Disk()
        self._pool = pool
        self._clock = clock

    async def run(self) -> None:
        """Ends when cancelled."""
        while True:
            await asyncio.sleep(schedule.TICK)
            await self.look()

    async def look(self) -> None:
        """Writes what is due."""
        for block in self.blocks:
            await self._flush_if(block, exiting=False)
            self.records[block.path] = schedule.passed(block, self.records[block.path], self._clock())

    async def close(self) -> None:
        """After the last transaction: the preferred file, if there is something new for it."""
        await self._flush_if(preferred(self.blocks), exiting=True)

    async def _flush_if(self, block: Block, *, exiting: bool) -> None:
        """A failure is logged, and tried again later. Where there are no rows there is no database to keep."""
        record, generation = self.records[block.path], self._committer.store.generation
        if not self._committer.store.count() or not schedule.due(block, record, self._clock(), generation, exiting):
            return
        try:
            await self.flush(block)
        except FlushError as error:
            log.error("%s is not written: %s", block.path, error, extra={"failures": record.failures + 1})
            self.records[block.path] = schedule.failed(record, self._clock())

    async def flush(self, block: Block) -> int:
        """Writes that file now; returns the generation of its rows. Raises `FlushError`."""
        began = self._clock()
        async with self._writing:
            generation = await self._write(block)
        record = self.records.get(block.path, schedule.begun(began))
        self.records[block.path] = schedule.written(record, self._clock(), generation)
        log.info("wrote %s", block.path, extra={"generation": generation, "seconds": round(self._clock() - began, 3)})
        return generation

    async def _write(self, block: Block) -> int:
        committer, disk, path = self._committer, self._disk, block.path
        generation, taken_back = committer.store.generation, committer.taken_back
        # Commits that were taken back are not among the rows.
        persistent = min(committer.last_persistent, generation)
        origin = Origin(pool=self._pool, term=committer.store.term, persistent=persistent)
        try:
            await self._in_child(block, origin)
            if committer.taken_back == taken_back:
                await committer.wait_durable(generation)
            if committer.taken_back != taken_back:
                raise FlushError("some of its rows were taken back")
            await asyncio.to_thread(dump_file.install, disk, path)
        except (OSError, ApiError) as error:
            await asyncio.to_thread(dump_file.discard, disk, path)
            raise FlushError(str(error)) from error
        except BaseException:
            await asyncio.to_thread(dump_file.discard, disk, path)
            raise
        return generation

    async def _in_child(self, block: Block, origin: Origin) -> None:
        """Raises `OSError` when there can be no child, `FlushError` when it fails. None is left behind."""
        child = Child(partial(_prepare, self._disk, block, self._committer.store, origin), NICE)
        try:
            if status := await child.wait():
                raise FlushError(f"its writer ended with status {status}")
        except asyncio.CancelledError:
            await child.kill()
            raise


def _prepare(disk: Disk, block: Block, store: Store, origin: Origin) -> None:
    dump_file.prepare(
        disk,
        block.path,
        pieces(moment(store)),
        generation=store.generation,
        origin=origin,
        compress=block.compress,
    )
