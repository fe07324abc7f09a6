from __future__ import annotations

import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage.formats.interface import Extent, FormatError, Truncated
from services.storage.formats.raw import plan_chunks, read_chunks, read_raw, write_chunks, write_raw
from tests.storage.formats.disks import Disk, Stream, scattered

MIB = 1 << 20


@given(st.integers(1, 3 * MIB), st.integers(0, 1000), st.booleans(), st.booleans())
@settings(max_examples=8, deadline=None)
async def test_a_plain_image_is_the_disk(size: int, seed: int, dense: bool, announced: bool) -> None:
    disk = Disk(scattered(size, seed), dense=dense)
    stream = Stream()
    await write_raw(disk, stream)
    assert stream.data == disk.content
    copy = Disk(b"x" * size)
    assert await read_raw(Stream(bytes(stream.data)), copy, size if announced else None) == size
    assert copy.content == disk.content
    assert copy.flushed


async def test_zeros_that_are_known_are_not_read() -> None:
    class Empty(Disk):
        size = 100 * MIB

        async def extents(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Extent]:
            yield Extent(0, 100 * MIB, True)

        async def read(self, offset: int, length: int) -> bytes:
            raise AssertionError

    stream = Stream()
    await write_raw(Empty(b""), stream)
    assert stream.data == bytes(100 * MIB)


async def test_zeros_are_not_written_as_data() -> None:
    sink = Disk(b"x" * 2 * MIB)
    await read_raw(Stream(bytes(MIB) + b"y" + bytes(MIB - 1)), sink, 2 * MIB)
    assert sink.content == bytes(MIB) + b"y" + bytes(MIB - 1)
    assert sink.data_written == 64 << 10


async def test_a_larger_image_is_refused() -> None:
    disk = Disk(b"x" * MIB)
    with pytest.raises(FormatError, match="1048577 bytes for a disk of 1048576"):
        await read_raw(Stream(b"y" * (MIB + 1)), disk, MIB + 1)
    assert disk.content == b"x" * MIB
    with pytest.raises(FormatError, match="for a disk of 1048576"):
        await read_raw(Stream(b"y" * (MIB + 1)), disk)


async def test_a_cut_image_is_truncated() -> None:
    with pytest.raises(Truncated, match="1048576 bytes"):
        await read_raw(Stream(b"y" * 1000), Disk(bytes(MIB)), MIB)


async def test_a_smaller_image_fills_the_begin() -> None:
    disk = Disk(b"x" * MIB)
    assert await read_raw(Stream(b"y" * 1000), disk) == 1000
    assert disk.content == b"y" * 1000 + b"x" * (MIB - 1000)
    await read_raw(Stream(b"z" * 10), disk, 10, zero_rest=True)
    assert disk.content == b"z" * 10 + bytes(MIB - 10)


@given(st.integers(1, 3 * MIB), st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
async def test_chunks_make_the_disk_again(size: int, seed: int) -> None:
    disk = Disk(scattered(size, seed))
    stream = Stream()
    await write_chunks(disk, stream, await plan_chunks(disk))
    copy = Disk(bytes(size))
    await read_chunks(Stream(bytes(stream.data)), copy)
    assert copy.content == disk.content


async def test_chunks_of_what_has_changed_bring_zeros_too() -> None:
    disk, base = Disk(bytes(3 * MIB)), Disk(b"x" * 3 * MIB)
    stream = Stream()
    await write_chunks(disk, stream, await plan_chunks(disk, [(MIB, MIB)]))
    await read_chunks(Stream(bytes(stream.data)), base)
    assert base.content == b"x" * MIB + bytes(MIB) + b"x" * MIB


def _chunk(offset: int, data: bytes) -> bytes:
    return struct.pack("<QI", offset, len(data)) + data


async def test_chunks_come_in_any_order_and_the_last_of_two_for_a_place_wins() -> None:
    disk = Disk(b"x" * 4 * MIB)
    stream = Stream(
        _chunk(3 * MIB, b"c" * MIB)
        + _chunk(5, b"a" * 2 * MIB)
        + _chunk(5, b"")
        + _chunk(0, b"b" * 10)
        + _chunk(7, b"d")
        + _chunk(0, b"")
        + b"what comes next"
    )
    await read_chunks(stream, disk)
    expected = bytearray(b"x" * 4 * MIB)
    expected[3 * MIB :] = b"c" * MIB
    expected[5 : 5 + 2 * MIB] = b"a" * 2 * MIB
    expected[:10] = b"b" * 10
    expected[7:8] = b"d"
    assert disk.content == expected
    assert bytes(stream.data[stream.taken :]) == b"what comes next"


async def test_a_chunk_behind_the_end_is_refused_and_a_missing_end_noticed() -> None:
    with pytest.raises(FormatError, match="the disk has 1048576 bytes"):
        await read_chunks(Stream(struct.pack("<QI", MIB - 1, 2)), Disk(bytes(MIB)))
    with pytest.raises(FormatError, match="the disk has"):
        await read_chunks(Stream(struct.pack("<QI", (1 << 64) - 1, 1)), Disk(bytes(MIB)))
    for cut in (b"", _chunk(0, b"abc"), _chunk(0, b"abc")[:-1], bytes(11)):
        with pytest.raises(Truncated):
            await read_chunks(Stream(cut), Disk(bytes(MIB)))
