"""What disk formats read from and write to: disks by position, streams in order. No format opens anything itself.

All sizes and positions are bytes. Whatever the disk's size, a format holds a few pieces of at most `PIECE` in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple, Protocol

Data = bytes | bytearray | memoryview
"""What disks hold. It may lie in memory that is used again when nobody refers to it any more: nobody changes it, and
who keeps it keeps that memory.
"""

PIECE: Final = 1 << 20
"""The largest read or write that a format makes; sources and sinks take any up to it."""


class Extent(NamedTuple):
    """A part of a disk. `zero`: it reads as zeros, and nobody needs to read it to know."""

    offset: int
    length: int
    zero: bool


class Source(Protocol):
    """A disk that is read; several reads may be under way at once."""

    @property
    def size(self) -> int: ...

    async def read(self, offset: int, length: int) -> Data: ...

    def extents(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Extent]:
        """The whole range, in order and without gaps."""
        ...


class Sink(Protocol):
    """A disk that is written; several calls, for ranges apart from each other, may be under way at once."""

    @property
    def size(self) -> int: ...

    async def write(self, offset: int, data: Data) -> None: ...

    async def zero(self, offset: int, length: int) -> None:
        """Makes a range of any length read as zeros, without storing them where that can be."""
        ...

    async def flush(self) -> None:
        """What was written is durable."""
        ...


class Output(Protocol):
    """A stream that is written."""

    async def write(self, data: Data) -> None: ...


class Input(Protocol):
    """A stream that is read."""

    async def read(self, length: int) -> bytes:
        """Exactly so many bytes. Raises `Truncated`."""
        ...

    async def read_data(self, length: int) -> Data:
        """As `read`, of what goes to a disk: without a copy where that can be."""
        ...

    async def read_some(self, length: int) -> bytes:
        """At least one byte and at most so many; b"" at the end."""
        ...


class FormatError(Exception):
    """The stream, or the image, is not what its format says; the text tells where and what."""


class Truncated(FormatError):
    """The stream ends too early."""
