"""Reading disks ahead of who writes a stream of them: a few pieces are on their way while one is sent."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Final, NamedTuple

from services.storage.formats.interface import PIECE, Data, Extent, Source

READ_AHEAD: Final = 3
"""Pieces that are read while one is written."""


class Piece(NamedTuple):
    """A part of a disk. `data`: None for zeros of any length; otherwise at most `PIECE` bytes."""

    offset: int
    length: int
    data: Data | None


async def read_ahead(source: Source, extents: AsyncIterable[Extent]) -> AsyncGenerator[Piece]:
    """The extents in order, with what is in them. Close it (`contextlib.aclosing`): it owns the reads under way."""
    pending: deque[tuple[Extent, asyncio.Task[Data] | None]] = deque()
    try:
        async for whole in extents:
            for extent in _pieces(whole):
                task = None if extent.zero else asyncio.create_task(source.read(extent.offset, extent.length))
                pending.append((extent, task))
                if len(pending) > READ_AHEAD:
                    yield await _piece(*pending.popleft())
        while pending:
            yield await _piece(*pending.popleft())
    finally:
        tasks = [task for _, task in pending if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _piece(extent: Extent, task: asyncio.Task[Data] | None) -> Piece:
    return Piece(extent.offset, extent.length, None if task is None else await task)


def _pieces(extent: Extent) -> Iterator[Extent]:
    if extent.zero:
        yield extent
        return
    for at in range(extent.offset, extent.offset + extent.length, PIECE):
        yield Extent(at, min(PIECE, extent.offset + extent.length - at), False)


async def aligned(extents: AsyncIterable[Extent], unit: int, begin: int, end: int) -> AsyncIterator[Extent]:
    """The same range in whole units (the last may be cut by `end`): zero where all of a unit is zeros.

    `begin` is a multiple of `unit`.
    """
    data_begin = data_end = begin
    async for extent in extents:
        if extent.zero or not extent.length:
            continue
        first = extent.offset // unit * unit
        after = min(end, -(-(extent.offset + extent.length) // unit) * unit)
        if first > data_end:
            if data_end > data_begin:
                yield Extent(data_begin, data_end - data_begin, False)
            yield Extent(data_end, first - data_end, True)
            data_begin = first
        data_end = max(data_end, after)
    if data_end > data_begin:
        yield Extent(data_begin, data_end - data_begin, False)
    if end > data_end:
        yield Extent(data_end, end - data_end, True)


class Coverage:
    """Which units of a disk a stream holds, in order; `zero` runs hold nothing but zeros. A few bytes for each run."""

    def __init__(self, unit: int, size: int) -> None:
        self.unit = unit
        self.size = size
        self._runs = array("Q")

    def add(self, begin: int, end: int, zero: bool) -> None:
        """Units from `begin` to before `end`, behind all that were added before."""
        self._runs.append(begin << 1 | zero)
        self._runs.append(end)

    def runs(self) -> Iterator[tuple[int, int, bool]]:
        """(begin, end, zero) in units."""
        for at in range(0, len(self._runs), 2):
            first = self._runs[at]
            yield first >> 1, self._runs[at + 1], bool(first & 1)

    def count(self, zero: bool | None = None) -> int:
        """How many units; all, or those that hold zeros, or those that do not."""
        return sum(end - begin for begin, end, is_zero in self.runs() if zero is None or is_zero is zero)

    async def extents(self) -> AsyncIterator[Extent]:
        """What is to be read for it, cut at the disk's end."""
        for begin, end, zero in self.runs():
            offset = begin * self.unit
            yield Extent(offset, min(end * self.unit, self.size) - offset, zero)


async def units_with_data(source: Source, unit: int) -> Coverage:
    """Those that are not known to be all zeros."""
    found = Coverage(unit, source.size)
    async for extent in aligned(source.extents(), unit, 0, source.size):
        if not extent.zero:
            found.add(extent.offset // unit, -(-(extent.offset + extent.length) // unit), False)
    return found


async def units_changed(source: Source, unit: int, ranges: Iterable[tuple[int, int]]) -> Coverage:
    """Those that any range (offset, length) touches, in whatever order they come; zeros among them are told apart."""
    found = Coverage(unit, source.size)
    for begin, end in _merged(ranges, unit, source.size):
        offset, after = begin * unit, min(end * unit, source.size)
        async for extent in aligned(source.extents(offset, after - offset), unit, offset, after):
            found.add(extent.offset // unit, -(-(extent.offset + extent.length) // unit), extent.zero)
    return found


def _merged(ranges: Iterable[tuple[int, int]], unit: int, size: int) -> Iterator[tuple[int, int]]:
    """(begin, end) in units, apart from each other."""
    begin = end = -1
    for offset, length in sorted(ranges):
        length = min(length, size - offset)
        if length <= 0:
            continue
        first, after = offset // unit, -(-(offset + length) // unit)
        if first > end:
            if end > begin:
                yield begin, end
            begin, end = first, after
        else:
            end = max(end, after)
    if end > begin:
        yield begin, end
