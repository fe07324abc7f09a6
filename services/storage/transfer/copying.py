"""One disk's content into another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from services.storage.formats.interface import PIECE, Extent, FormatError, Source
from services.storage.formats.reading import read_ahead
from services.storage.formats.writing import Target
from services.storage.transfer.compare import differences
from services.storage.transfer.disk import Disk
from services.storage.transfer.job import Range


async def copy(source: Disk, target: Disk, base: Source | None, changed: list[Range] | None, zeroed: bool) -> None:
    """All of it, or with a base what differs from it; durable then. `zeroed`: the target reads as zeros, where that is
    all that would be written.

    Raises `FormatError` when the target is too small for what is there, and what the disks raise.
    """
    if source.size > target.size:
        raise FormatError(f"a disk of {source.size} bytes for one of {target.size}")
    extents = source.extents() if base is None else _differing(source, base, changed)
    async with Target(target, "copy") as writing, aclosing(read_ahead(source, extents)) as pieces:
        async for piece in pieces:
            source.reached = max(source.reached, piece.offset + piece.length)
            if piece.data is not None:
                await writing.write(piece.offset, piece.data)
            elif base is not None or not zeroed:
                await writing.zero(piece.offset, piece.length)
        if base is None and not zeroed:
            await writing.zero(source.size, target.size - source.size)
        await writing.finish()


async def _differing(source: Source, base: Source, changed: list[Range] | None) -> AsyncIterator[Extent]:
    async for offset, length in differences(source, base, changed):
        for at in range(offset, offset + length, PIECE):
            async for extent in source.extents(at, min(PIECE, offset + length - at)):
                yield extent
