"""Writes all rows to a new checkpoint while transactions go on: a forked child has its own copy of the memory."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Protocol

from services.db.child import NICE, Child
from services.db.committer import Committer
from services.db.redo.interface import Checkpoint, CheckpointHeader, RedoLogError
from shared.store import Store

log = logging.getLogger("db.checkpoint")


class _Running:
    """A checkpoint that a child writes. `counts`: None until that is known. `given_up`: the child took too long."""

    def __init__(self, checkpoint: Checkpoint, child: Child, taken_back: int) -> None:
        self.checkpoint = checkpoint
        self.child = child
        self.taken_back = taken_back
        self.counts: bool | None = None
        self.given_up = False


class Source(Protocol):
    """A redo log, or a part of one that has checkpoints of its own."""

    def checkpoint(self) -> Checkpoint: ...


class Checkpoints:
    """One at a time. `boot`: of the machine, for their headers. `limit`: seconds that a child may write.

    The rows may hold commits whose records go to the log a moment after the child was made: replay skips those. If they
    are taken back instead, the checkpoint is abandoned. A child that fails or is killed leaves everything as it was.
    """

    def __init__(self, committer: Committer, redo_log: Source, boot: str, limit: float | None = None) -> None:
        self._committer = committer
        self._limit = limit
        self._log = redo_log
        self._boot = boot
        self._running: _Running | None = None
        self._tidying: set[asyncio.Task[None]] = set()

    def _header(self, rows: Store, requests: dict[str, int]) -> CheckpointHeader:
        return CheckpointHeader(
            generation=rows.generation, term=rows.term, rows=rows.count(), boot=self._boot, requests=requests
        )

    async def write(self) -> bool:
        """Returns whether it counts."""
        try:
            running = await self._committer.at_boundary(self._begin)
            await self._written(running)
            counts = await self._committer.at_boundary(partial(self._end, running))
        except RedoLogError as error:
            log.error("no checkpoint: %s", error)
            return False
        await _tidy(counts, running.checkpoint)
        return counts

    async def write_between(self) -> bool:
        """The same, called between two writes, which wait for it: the log has no room for the next one."""
        try:
            running = await self._begin()
            running.child.hurry()
            counts = await self._end(running)
        except RedoLogError as error:
            log.error("no checkpoint: %s", error)
            return False
        tidying = asyncio.create_task(_tidy(counts, running.checkpoint), name="tidy after a checkpoint")
        self._tidying.add(tidying)
        tidying.add_done_callback(self._tidying.discard)
        return counts

    async def replace(self, rows: Store, requests: dict[str, int]) -> None:
        """Other rows count from then on: nothing may be committed meanwhile.

        Raises `RedoLogError`: then the rows are as before.
        """
        checkpoint = self._log.checkpoint()
        checkpoint.hold(self._header(rows, requests))
        child = Child(lambda: checkpoint.write(rows.snapshot()))
        try:
            if status := await child.wait():
                raise RedoLogError(f"the rows could not be written (status {status})")
            await self._committer.in_log_thread(checkpoint.finish)
        except BaseException:
            await child.kill()
            await self._committer.in_log_thread(_abandon, checkpoint)
            raise
        await _tidy(True, checkpoint)

    async def close(self) -> None:
        """Ends a child that still writes; waits for what is being removed."""
        if self._running is not None:
            await self._running.child.kill()
        await asyncio.gather(*self._tidying)

    async def _begin(self) -> _Running:
        """The one that runs, or a new one. Raises `RedoLogError`."""
        if self._running is not None:
            return self._running
        store, committer = self._committer.store, self._committer
        checkpoint = self._log.checkpoint()
        await committer.in_log_thread(checkpoint.begin)
        # From here to the fork nothing may be awaited: the header is about the rows that the child gets.
        checkpoint.hold(self._header(store, committer.requests_in_rows))
        child = Child(_writing(checkpoint, store), NICE)
        self._running = _Running(checkpoint, child, committer.taken_back)
        return self._running

    async def _written(self, running: _Running) -> int:
        """The child's status. One that takes too long is killed, and not waited for: a device may not let it die."""
        if running.given_up:
            return -signal.SIGKILL
        try:
            async with asyncio.timeout(self._limit):
                return await running.child.wait()
        except TimeoutError:
            log.error("the checkpoint's writer has not ended within %s s: killed", self._limit)
            running.given_up = True
            running.child.end()
            return -signal.SIGKILL

    async def _end(self, running: _Running) -> bool:
        """Between two writes. Whoever comes first ends it; the others hear how it went."""
        if running.counts is not None:
            return running.counts
        status = await self._written(running)
        running.counts = False
        self._running = None
        if status != 0:
            log.error("the checkpoint's writer failed; the log is kept", extra={"status": status})
        elif self._committer.taken_back == running.taken_back:
            running.counts = await self._committer.in_log_thread(_finished, running.checkpoint)
        if not running.counts:
            await self._committer.in_log_thread(_abandon, running.checkpoint)
        return running.counts


async def _tidy(counts: bool, checkpoint: Checkpoint) -> None:
    if counts:
        await asyncio.to_thread(checkpoint.tidy)


def _writing(checkpoint: Checkpoint, store: Store) -> Callable[[], None]:
    return lambda: checkpoint.write(store.snapshot())


def _finished(checkpoint: Checkpoint) -> bool:
    try:
        checkpoint.finish()
    except RedoLogError as error:
        log.error("the checkpoint does not count: %s", error)
        return False
    return True


def _abandon(checkpoint: Checkpoint) -> None:
    """What is committed after a checkpoint that counts, and should not, would be lost with the rows that it lacks."""
    try:
        checkpoint.abandon()
    except RedoLogError as error:
        log.critical("%s; starting anew", error)
        os._exit(1)
