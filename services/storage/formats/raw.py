"""Plain images as streams, and the chunked form of them, in which parts come with their places."""

from __future__ import annotations

import struct
from contextlib import aclosing
from typing import Final

from services.storage.formats.forward import Forward
from services.storage.formats.interface import PIECE, Data, FormatError, Input, Output, Sink, Source
from services.storage.formats.reading import Coverage, read_ahead, units_changed, units_with_data
from services.storage.formats.writing import GRAIN, Target
from services.storage.formats.zeros import zeros

_RAW: Final = "raw image"
_CHUNKS: Final = "raw image in chunks"
_CHUNK: Final = struct.Struct("<QI")
"""Offset in the disk, length of the data that follows; both 0 at the end."""


async def write_raw(source: Source, output: Output) -> None:
    """All bytes of the disk. Zeros that are known are not read."""
    async with aclosing(read_ahead(source, source.extents())) as pieces:
        async for piece in pieces:
            if piece.data is not None:
                await output.write(piece.data)
                continue
            for at in range(0, piece.length, PIECE):
                await output.write(zeros(min(PIECE, piece.length - at)))


async def read_raw(stream: Input, sink: Sink, length: int | None = None, zero_rest: bool = False) -> int:
    """Writes the stream to the disk's begin and returns its bytes; what was written is durable then.

    `length`: bytes that were announced; None reads to the stream's end. An image may be smaller than the disk; then
    `zero_rest` makes zeros of what is behind it. Raises `FormatError` for one that is larger, before anything is
    written if its length is known, and `Truncated` if it ends before that.
    """
    if length is not None and length > sink.size:
        raise FormatError(f"raw image of {length} bytes for a disk of {sink.size}")
    source = Forward(stream, _RAW)
    async with Target(sink, _RAW) as target:
        while length is None or source.position < length:
            at = source.position
            if length is None:
                data: Data = await source.read_up_to(PIECE)
                if not data:
                    break
                if source.position > sink.size:
                    raise FormatError(f"raw image of {source.position} bytes or more for a disk of {sink.size}")
            else:
                data = await source.read_data(min(PIECE, length - at), f"an image of {length} bytes")
            await target.write(at, data)
        if zero_rest:
            await target.zero(source.position, sink.size - source.position)
        await target.finish()
    return source.position


async def plan_chunks(source: Source, changed: list[tuple[int, int]] | None = None) -> Coverage:
    """What a chunked stream holds: data that is not known to be zeros, or all of the ranges that have changed."""
    return await (units_with_data(source, GRAIN) if changed is None else units_changed(source, GRAIN, changed))


async def write_chunks(source: Source, output: Output, coverage: Coverage) -> None:
    """The parts of a plan, each with its place, for a disk that is zeros (or the base) elsewhere."""
    async with aclosing(read_ahead(source, coverage.extents())) as pieces:
        async for piece in pieces:
            for at in range(0, piece.length, PIECE):
                length = min(PIECE, piece.length - at)
                await output.write(_CHUNK.pack(piece.offset + at, length))
                await output.write(zeros(length) if piece.data is None else piece.data)
    await output.write(_CHUNK.pack(0, 0))


async def read_chunks(stream: Input, sink: Sink) -> None:
    """Writes each chunk to its place, in any order; the rest stays. Nothing behind the end mark is read.

    Raises `FormatError` for a chunk behind the disk's end, before it is read, and `Truncated`.
    """
    source = Forward(stream, _CHUNKS)
    async with Target(sink, _CHUNKS) as target:
        while True:
            at = source.position
            offset, length = _CHUNK.unpack(await source.read(_CHUNK.size, "a chunk's header"))
            if offset == length == 0:
                break
            if offset + length > sink.size:
                raise FormatError(
                    f"{_CHUNKS}: the chunk at {at} is for {offset} to {offset + length}, the disk has {sink.size} bytes"
                )
            for done in range(0, length, PIECE):
                data = await source.read_data(min(PIECE, length - done), f"the chunk of {length} bytes for {offset}")
                await target.write(offset + done, data)
        await target.finish()
