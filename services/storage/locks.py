"""Locks of one host: each SR shared or exclusive, each disk exclusive. First come, first served.

What works on a disk holds its SR shared and the disk; what attaches, detaches or destroys an SR holds it exclusively,
so it waits for all disks. Several locks are taken in sorted order: no deadlock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager


class SharedLock:
    """Many readers or one writer; a writer that waits holds back later readers."""

    def __init__(self) -> None:
        self._readers = 0
        self._writer = False
        self._queue: deque[tuple[bool, asyncio.Future[None]]] = deque()

    @property
    def idle(self) -> bool:
        return not self._readers and not self._writer and not self._queue

    @property
    def open_to_readers(self) -> bool:
        return not self._writer and not self._queue

    @asynccontextmanager
    async def hold(self, exclusive: bool) -> AsyncIterator[None]:
        await self._acquire(exclusive)
        try:
            yield
        finally:
            self._release(exclusive)

    async def _acquire(self, exclusive: bool) -> None:
        if not self._queue and self._free(exclusive):
            self._take(exclusive)
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (exclusive, granted)
        self._queue.append(entry)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._release(exclusive)
            else:
                self._queue.remove(entry)
                self._grant()
            raise

    def _free(self, exclusive: bool) -> bool:
        return not self._writer and not (exclusive and self._readers)

    def _take(self, exclusive: bool) -> None:
        if exclusive:
            self._writer = True
        else:
            self._readers += 1

    def _release(self, exclusive: bool) -> None:
        if exclusive:
            self._writer = False
        else:
            self._readers -= 1
        self._grant()

    def _grant(self) -> None:
        while self._queue and self._free(self._queue[0][0]):
            exclusive, granted = self._queue.popleft()
            if granted.cancelled():
                continue
            self._take(exclusive)
            granted.set_result(None)


class Locks:
    """The locks of one host, made when needed and forgotten when nobody wants them."""

    def __init__(self) -> None:
        self._locks: dict[str, SharedLock] = {}

    def idle(self, sr: str) -> bool:
        """Whether nobody has, or waits for, the SR or anything in it."""
        return sr not in self._locks

    def free(self, sr: str, location: str) -> bool:
        """Whether the disk can be had without waiting."""
        lock = self._locks.get(sr)
        return (lock is None or lock.open_to_readers) and f"{sr}/{location}" not in self._locks

    @asynccontextmanager
    async def sr(self, sr: str) -> AsyncIterator[None]:
        """The SR exclusively."""
        async with self._hold(sr, exclusive=True):
            yield

    @asynccontextmanager
    async def disks(self, disks: Iterable[tuple[str, str]]) -> AsyncIterator[None]:
        """Each disk, given as (SR, location), exclusively, and its SR shared."""
        wanted = sorted(set(disks))
        async with AsyncExitStack() as stack:
            for sr in sorted({sr for sr, _ in wanted}):
                await stack.enter_async_context(self._hold(sr, exclusive=False))
            for sr, location in wanted:
                await stack.enter_async_context(self._hold(f"{sr}/{location}", exclusive=True))
            yield

    @asynccontextmanager
    async def shared(self, sr: str) -> AsyncIterator[None]:
        """The SR shared, no disk."""
        async with self._hold(sr, exclusive=False):
            yield

    @asynccontextmanager
    async def _hold(self, name: str, exclusive: bool) -> AsyncIterator[None]:
        lock = self._locks.setdefault(name, SharedLock())
        try:
            async with lock.hold(exclusive):
                yield
        finally:
            if lock.idle:
                self._locks.pop(name, None)
