"""A disk's data by vhost-user: read into memory that is shared with the disk's server, and written from it.

Nothing is copied between the processes, which is what the data of large transfers needs. All else (what is there,
zeros, flushes, why something failed) is asked of the same disk over NBD.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import socket
from typing import Final, Self

from services.storage.vhost.memory import Memory, address
from services.storage.vhost.messages import Queue, Region, set_up
from services.storage.vhost.ring import (
    AVAILABLE_AT,
    DESCRIPTORS_AT,
    ENTRIES,
    IN_FLIGHT,
    SECTOR,
    SIZE,
    USED_AT,
    Kind,
    Ring,
)

_SETS_UP_WITHIN: Final = 10.0
"""Seconds."""
_QUEUE_BASE: Final = 0
_DATA_BASE: Final = 1 << 30
"""Where the device finds the memory of the queue, and that of the data."""


class VhostFailed(OSError):
    """A request failed, without a reason, or the server is gone."""


class VhostDisk:
    """One connection; requests are independent of each other. What is read and written lies in `memory`, in whole
    sectors. Nobody may use the memory of a request before it is answered, also if who asked was cancelled: it is held.
    """

    def __init__(self, connection: socket.socket, memory: Memory) -> None:
        self._connection, self._memory = connection, memory
        self._descriptor = os.memfd_create("queue", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, SIZE)
        self._queue = memoryview(mmap.mmap(self._descriptor, SIZE))
        self._kick, self._call = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))
        self._ring = Ring(self._queue, _QUEUE_BASE)
        self._free = list(range(IN_FLIGHT))
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._pending: dict[int, tuple[asyncio.Future[bool], memoryview]] = {}
        self._loop = asyncio.get_running_loop()
        self._lost = False

    @classmethod
    async def connect(cls, path: str, memory: Memory) -> Self:
        """Raises OSError, `VhostError`."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_SETS_UP_WITHIN)
            await asyncio.to_thread(connection.connect, path)
            disk = cls(connection, memory)
        except BaseException:
            connection.close()
            raise
        try:
            await asyncio.to_thread(disk._set_up)
        except BaseException:
            disk._release()
            raise
        connection.setblocking(False)
        disk._loop.add_reader(disk._call, disk._answered)
        disk._loop.add_reader(connection, disk._ended)
        return disk

    async def close(self) -> None:
        """What waits for an answer fails."""
        self._fail()
        self._release()

    async def read(self, offset: int, into: memoryview) -> None:
        """Raises `VhostFailed`."""
        await self._ask(Kind.READ, offset, into)

    async def write(self, offset: int, data: memoryview) -> None:
        """Raises `VhostFailed`."""
        await self._ask(Kind.WRITE, offset, data)

    async def _ask(self, kind: Kind, offset: int, data: memoryview) -> None:
        place = self._memory.place(data)
        if place is None or offset % SECTOR or len(data) % SECTOR:
            raise ValueError(f"{len(data)} bytes for {offset} are not sectors in shared memory")
        await self._room.acquire()
        if self._lost:
            self._room.release()
            raise VhostFailed(errno.ESHUTDOWN, "the disk's server has ended")
        number = self._free.pop()
        answer: asyncio.Future[bool] = self._loop.create_future()
        self._pending[number] = answer, data
        self._ring.put(number, kind, offset, _DATA_BASE + place, len(data))
        os.eventfd_write(self._kick, 1)
        if not await answer:
            raise VhostFailed(errno.EIO, f"{kind.name.lower()} of {len(data)} bytes at {offset} failed")

    def _answered(self) -> None:
        try:
            os.eventfd_read(self._call)
        except BlockingIOError:
            return
        if self._lost:
            return  # whoever waited has been told that it failed
        for number, well in self._ring.done():
            answer, _ = self._pending.pop(number)
            self._free.append(number)
            self._room.release()
            if not answer.done():
                answer.set_result(well)

    def _ended(self) -> None:
        """The server does not say anything by itself, but that it ends."""
        self._loop.remove_reader(self._connection)
        self._fail()

    def _fail(self) -> None:
        self._lost = True
        pending, self._pending = list(self._pending.values()), {}
        for answer, _ in pending:
            self._room.release()
            if not answer.done():
                answer.set_result(False)

    def _set_up(self) -> None:
        base = address(self._queue)
        set_up(
            self._connection,
            [
                Region(self._descriptor, SIZE, _QUEUE_BASE, base),
                Region(self._memory.descriptor, self._memory.size, _DATA_BASE, self._memory.address),
            ],
            Queue(ENTRIES, base + DESCRIPTORS_AT, base + USED_AT, base + AVAILABLE_AT, self._kick, self._call),
        )

    def _release(self) -> None:
        if self._connection.fileno() < 0:
            return
        self._loop.remove_reader(self._call)
        self._loop.remove_reader(self._connection)
        self._connection.close()
        for descriptor in (self._descriptor, self._kick, self._call):
            os.close(descriptor)
