"""Disks and streams in memory, for the formats."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

from services.storage.formats.interface import PIECE, Data, Extent, Truncated


class Disk:
    """A source and a sink. Extents are of `grain` bytes; `dense` disks do not know their zeros."""

    def __init__(self, content: bytes | bytearray, grain: int = 4096, dense: bool = False) -> None:
        self.content = bytearray(content)
        self.grain = grain
        self.dense = dense
        self.flushed = False
        self.data_written = 0

    @property
    def size(self) -> int:
        return len(self.content)

    async def read(self, offset: int, length: int) -> bytes:
        assert 0 < length <= PIECE
        assert offset + length <= self.size
        return bytes(self.content[offset : offset + length])

    async def extents(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Extent]:
        end = self.size if length is None else offset + length
        while offset < end:
            after = min(end, (offset // self.grain + 1) * self.grain)
            yield Extent(
                offset, after - offset, not self.dense and self.content[offset:after].count(0) == after - offset
            )
            offset = after

    async def write(self, offset: int, data: Data) -> None:
        assert 0 < len(data) <= PIECE
        assert offset + len(data) <= self.size
        self.content[offset : offset + len(data)] = data
        self.data_written += len(data)

    async def zero(self, offset: int, length: int) -> None:
        assert length > 0
        assert offset + length <= self.size
        self.content[offset : offset + length] = bytes(length)

    async def flush(self) -> None:
        self.flushed = True


class Sparse:
    """A disk too large to be held, of a few pieces of data by their offset; known zeros between them."""

    def __init__(self, size: int, pieces: dict[int, bytes]) -> None:
        self.size = size
        self.pieces = pieces

    async def read(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        for at, piece in self.pieces.items():
            begin, end = max(at, offset), min(at + len(piece), offset + length)
            if begin < end:
                data[begin - offset : end - offset] = piece[begin - at : end - at]
        return bytes(data)

    async def extents(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Extent]:
        end = self.size if length is None else offset + length
        for at, piece in sorted(self.pieces.items()):
            begin, after = max(at, offset), min(at + len(piece), end)
            if begin < after:
                if begin > offset:
                    yield Extent(offset, begin - offset, True)
                yield Extent(begin, after - begin, False)
                offset = after
        if end > offset:
            yield Extent(offset, end - offset, True)

    async def write(self, offset: int, data: Data) -> None:
        self.pieces[offset] = bytes(data)

    async def zero(self, offset: int, length: int) -> None:
        """Nothing: it is zeros already."""

    async def flush(self) -> None: ...

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(self.size)
            for offset, data in self.pieces.items():
                file.seek(offset)
                file.write(data)


class Stream:
    """An output, and an input of what is in it; `chunk`: most bytes that `read_some` gives."""

    def __init__(self, data: bytes = b"", chunk: int = 1 << 16) -> None:
        self.data = bytearray(data)
        self.taken = 0
        self._chunk = chunk

    async def write(self, data: Data) -> None:
        assert 0 < len(data) <= PIECE
        self.data += data

    async def read(self, length: int) -> bytes:
        assert 0 < length <= PIECE
        if self.taken + length > len(self.data):
            raise Truncated("end of the stream")
        return self._take(length)

    async def read_data(self, length: int) -> memoryview:
        return memoryview(bytearray(await self.read(length)))

    async def read_some(self, length: int) -> bytes:
        assert length > 0
        return self._take(min(length, self._chunk, len(self.data) - self.taken))

    def _take(self, length: int) -> bytes:
        self.taken += length
        return bytes(self.data[self.taken - length : self.taken])


def scattered(size: int, seed: int, pieces: int = 6) -> bytearray:
    """A disk of zeros with some random data here and there, at the end too."""
    rnd = random.Random(seed)
    content = bytearray(size)
    for _ in range(pieces):
        at = rnd.randrange(size)
        data = rnd.randbytes(min(size - at, rnd.choice((1, 512, 5000, 70_000))))
        content[at : at + len(data)] = data
    content[-1:] = b"\x01"
    return content
