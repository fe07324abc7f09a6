"""The disk of a transfer, as formats see it: an NBD export, or a simulated disk; what passes it is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from services.storage.formats.interface import Data, Extent, Sink, Source
from services.storage.nbd.address import parse
from services.storage.nbd.client import NbdClient, NbdError
from services.storage.transfer import job
from services.storage.transfer.image import Image
from services.storage.vhost.client import VhostDisk, VhostFailed
from services.storage.vhost.memory import Memory
from services.storage.vhost.ring import SECTOR


class Simulated:
    """A disk without content: reads as zeros, and takes anything without keeping it."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def read(self, offset: int, length: int) -> Data:
        return bytes(length)

    async def extents(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Extent]:
        length = self.size - offset if length is None else length
        if length:
            yield Extent(offset, length, True)

    async def write(self, offset: int, data: Data) -> None:
        await asyncio.sleep(0)

    async def zero(self, offset: int, length: int) -> None:
        await asyncio.sleep(0)

    async def flush(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)


class Disk(Source, Sink):
    """`data`: bytes that were read or written as data. `reached`: the furthest byte that was looked at or written.

    Data is read from the image's file where it is there in one piece. Else it takes the fast way where the server has
    one, and there is memory for it; all else takes NBD.
    """

    def __init__(
        self,
        size: int,
        medium: NbdClient | Simulated,
        fast: VhostDisk | None,
        memory: Memory,
        image: Image | None = None,
    ) -> None:
        self._size, self._medium, self._fast, self._memory, self._image = size, medium, fast, memory, image
        self.data = self.reached = 0

    @classmethod
    async def open(cls, disk: job.Disk, memory: Memory) -> Disk:
        """Raises `NbdError`; an export may be larger than the disk, since it has whole sectors."""
        if not disk.nbd:
            return cls(disk.size, Simulated(disk.size), None, memory)
        medium = await NbdClient.connect(parse(disk.nbd))
        try:
            if medium.size < disk.size:
                raise NbdError(5, f"the disk should have {disk.size} bytes, but is opened with {medium.size}")
            fast = await VhostDisk.connect(disk.vhost, memory) if disk.vhost else None
        except BaseException:
            await medium.close()
            raise
        image = Image.open(disk.image, disk.format) if disk.image else None
        return cls(disk.size, medium, fast, memory, image)

    async def close(self) -> None:
        if self._image is not None:
            self._image.close()
        if self._fast is not None:
            await self._fast.close()
        await self._medium.close()

    @property
    def size(self) -> int:
        return self._size

    async def read(self, offset: int, length: int) -> Data:
        data = await self._read(offset, length)
        self.data += length
        self.reached = max(self.reached, offset + length)
        return data

    async def _read(self, offset: int, length: int) -> Data:
        mapped = self._image.data(offset, length) if self._image is not None else None
        if mapped is not None:
            return mapped
        if self._fast is not None and not offset % SECTOR and not length % SECTOR:
            buffer = self._memory.take(length)
            if buffer is not None:
                with suppress(VhostFailed):  # NBD says why
                    await self._fast.read(offset, buffer)
                    return buffer
        return await self._medium.read(offset, length)

    def extents(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Extent]:
        return self._medium.extents(offset, self._size - offset if length is None else length)

    async def write(self, offset: int, data: Data) -> None:
        await self._write(offset, data)
        self.data += len(data)
        self.reached = max(self.reached, offset + len(data))

    async def _write(self, offset: int, data: Data) -> None:
        if self._fast is not None and not offset % SECTOR and not len(data) % SECTOR:
            shared = self._shared(data)
            if shared is not None:
                with suppress(VhostFailed):  # NBD says why
                    await self._fast.write(offset, shared)
                    return
        await self._medium.write(offset, data)

    def _shared(self, data: Data) -> memoryview | None:
        """The data in the memory that the server shares; None if there is no room for it."""
        if isinstance(data, memoryview) and self._memory.place(data) is not None:
            return data
        buffer = self._memory.take(len(data))
        if buffer is not None:
            buffer[:] = data
        return buffer

    async def zero(self, offset: int, length: int) -> None:
        """What reads as zeros already is left as it is: a thin disk stays thin, with no marks for zeros either."""
        async for extent in self._medium.extents(offset, length):
            if not extent.zero:
                await self._medium.zero(extent.offset, extent.length)
        self.reached = max(self.reached, offset + length)

    async def flush(self) -> None:
        await self._medium.flush()


class ZerosFirst(Sink):
    """A sink for streams that leave zeros out: all of it is made zeros before the first write, not earlier, so that a
    stream without anything changes nothing.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._zeroed: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        return self._sink.size

    async def write(self, offset: int, data: Data) -> None:
        await self._zero_all()
        await self._sink.write(offset, data)

    async def zero(self, offset: int, length: int) -> None:
        await self._zero_all()

    async def flush(self) -> None:
        await self._sink.flush()

    async def _zero_all(self) -> None:
        if self._zeroed is None:
            self._zeroed = asyncio.create_task(self._sink.zero(0, self._sink.size))
        await asyncio.shield(self._zeroed)
