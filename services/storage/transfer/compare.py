"""Where two disks differ, found by reading both: for SR types that do not know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final

from services.storage.formats.interface import PIECE, Extent, Source
from services.storage.formats.zeros import zeros
from services.storage.transfer.job import Range

GRAIN: Final = 64 << 10
"""Bytes: differences are told in such units."""
_AT_ONCE: Final = 4


async def differences(disk: Source, base: Source, changed: list[Range] | None = None) -> AsyncIterator[Range]:
    """In order, apart from each other, in units of `GRAIN` (cut at the disk's end). `changed`: nothing else may differ.

    What the disk has behind the end of a smaller base differs unless it is zeros.
    """
    last: Range | None = None
    async for offset, length in _differing(disk, base, changed):
        if last is not None and last[0] + last[1] == offset:
            last = (last[0], last[1] + length)
            continue
        if last is not None:
            yield last
        last = (offset, length)
    if last is not None:
        yield last


async def _differing(disk: Source, base: Source, changed: list[Range] | None) -> AsyncIterator[Range]:
    reads: list[asyncio.Task[list[Range]]] = []
    try:
        async for offset, length in _suspects(disk, base, changed):
            reads.append(asyncio.create_task(_compared(disk, base, offset, length)))
            if len(reads) >= _AT_ONCE:
                for found in await reads.pop(0):
                    yield found
        while reads:
            for found in await reads.pop(0):
                yield found
    finally:
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


async def _suspects(disk: Source, base: Source, changed: list[Range] | None) -> AsyncIterator[Range]:
    """Pieces, cut at multiples of `PIECE`, of which at least one disk may have data."""
    for offset, length in sorted(changed) if changed is not None else [(0, disk.size)]:
        end = min(offset + length, disk.size)
        one, other = _pieces(disk, offset, end), _pieces(base, offset, min(end, base.size))
        mine, its = await anext(one, None), await anext(other, None)
        while mine is not None or its is not None:
            piece = min(each for each in (mine, its) if each is not None)
            yield piece, min(PIECE - piece % PIECE, end - piece)
            if mine == piece:
                mine = await anext(one, None)
            if its == piece:
                its = await anext(other, None)


async def _pieces(disk: Source, offset: int, end: int) -> AsyncIterator[int]:
    """Where each piece with data begins."""
    last = -1
    if offset >= end:
        return
    async for extent in disk.extents(offset, end - offset):
        if extent.zero:
            continue
        for piece in _begins(extent, offset):
            if piece > last:
                yield piece
                last = piece


def _begins(extent: Extent, offset: int) -> Iterator[int]:
    yield max(offset, extent.offset // PIECE * PIECE)
    yield from range((extent.offset // PIECE + 1) * PIECE, extent.offset + extent.length, PIECE)


async def _compared(disk: Source, base: Source, offset: int, length: int) -> list[Range]:
    mine, its = await asyncio.gather(disk.read(offset, length), _read_base(base, offset, length))
    mine, its = bytes(mine), bytes(its)  # which compare faster than views
    if mine == its:
        return []
    return [
        (offset + at, min(GRAIN, length - at))
        for at in range(0, length, GRAIN)
        if mine[at : at + GRAIN] != its[at : at + GRAIN]
    ]


async def _read_base(base: Source, offset: int, length: int) -> bytes:
    there = max(0, min(length, base.size - offset))
    data = bytes(await base.read(offset, there)) if there else b""
    return data + zeros(length - there) if there < length else data
