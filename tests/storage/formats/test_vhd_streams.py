from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage.formats.interface import Data, FormatError, Truncated
from services.storage.formats.vhd.create import Parent
from services.storage.formats.vhd.footer import DiskType, Footer, checksum
from services.storage.formats.vhd.reader import read_vhd
from services.storage.formats.vhd.writer import plan_delta, plan_full, write_vhd
from tests.storage.formats import qemu
from tests.storage.formats.disks import Disk, Stream, scattered
from tests.storage.formats.vhd_by_the_book import read_disk

MIB = 1 << 20
SECTOR = 512
SIZES = st.integers(1, 7 * MIB // SECTOR).map(lambda sectors: sectors * SECTOR)


async def _full(disk: Disk) -> bytes:
    stream = Stream()
    plan = await plan_full(disk)
    await write_vhd(disk, stream, plan)
    assert len(stream.data) == plan.length
    return bytes(stream.data)


async def _delta(disk: Disk, changed: list[tuple[int, int]], parent: Parent) -> bytes:
    stream = Stream()
    plan = await plan_delta(disk, changed, parent)
    await write_vhd(disk, stream, plan)
    assert len(stream.data) == plan.length
    return bytes(stream.data)


@given(SIZES, st.integers(0, 1000), st.booleans())
@settings(max_examples=8, deadline=None)
async def test_a_full_stream_makes_the_disk_again(size: int, seed: int, dense: bool) -> None:
    disk = Disk(scattered(size, seed), dense=dense)
    copy = Disk(b"old" * (size // 3 + 1))
    del copy.content[size:]
    footer = await read_vhd(Stream(await _full(disk)), copy, zero_absent=True)
    assert footer.size == size
    assert copy.content == disk.content
    assert copy.flushed


@given(
    st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 7 * MIB), st.integers(0, MIB)), max_size=4), st.booleans()
)
@settings(max_examples=8, deadline=None)
async def test_a_delta_brings_a_base_up_to_date(seed: int, changed: list[tuple[int, int]], blank: bool) -> None:
    base = Disk(scattered(7 * MIB, seed))
    disk = Disk(base.content)
    for offset, length in changed:
        end = min(disk.size, offset + length)
        disk.content[offset:end] = bytes(end - offset) if blank else scattered(end - offset, 5) if end > offset else b""
    parent = Parent(uuid.uuid4(), "base.vhd", 77)
    data = await _delta(disk, changed, parent)
    footer = await read_vhd(Stream(data), base, zero_absent=True)
    assert footer.type is DiskType.DIFFERENCING
    assert data[512 + 40 : 512 + 56] == parent.uuid.bytes
    assert base.content == disk.content


async def test_a_delta_holds_whole_blocks_of_what_has_changed_and_nothing_else() -> None:
    disk = Disk(scattered(9 * MIB, 1))
    sink = Disk(b"x" * disk.size)
    data = await _delta(disk, [(5 * MIB, 1), (disk.size - 512, 512)], Parent(uuid.uuid4(), "base.vhd"))
    await read_vhd(Stream(data), sink)
    x = bytearray(b"x" * disk.size)
    x[4 * MIB : 6 * MIB] = disk.content[4 * MIB : 6 * MIB]
    x[8 * MIB :] = disk.content[8 * MIB :]
    assert sink.content == x


@pytest.mark.parametrize("size", [512, 2 * MIB, 7 * MIB + 1536])
async def test_qemu_reads_what_we_write(tmp_path: Path, size: int) -> None:
    disk = Disk(scattered(size, 3))
    written = tmp_path / "ours.vhd"
    written.write_bytes(await _full(disk))
    assert qemu.info(written, "vpc")["virtual-size"] == size
    assert qemu.convert(written, "vpc", tmp_path / "raw", "raw").read_bytes() == disk.content
    assert read_disk(written) == disk.content


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
async def test_we_read_what_qemu_writes(tmp_path: Path, subformat: str) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(scattered(7 * MIB + 1536, 4))
    theirs = qemu.convert(raw, "raw", tmp_path / "theirs.vhd", "vpc", "-o", f"subformat={subformat},force_size=on")
    sink = Disk(b"x" * raw.stat().st_size)
    footer = await read_vhd(Stream(theirs.read_bytes(), chunk=1000), sink, zero_absent=True)
    assert footer.type is (DiskType.DYNAMIC if subformat == "dynamic" else DiskType.FIXED)
    assert sink.content == raw.read_bytes()


async def test_blocks_in_any_order_and_with_gaps_are_read() -> None:
    disk = Disk(scattered(6 * MIB, 5, 12), dense=True)
    data = await _full(disk)
    bat, block = struct.unpack(">3I", data[2048:2060]), 2 * MIB + 512
    parts = [data[at * SECTOR : at * SECTOR + block] for at in bat]
    moved = data[:2560] + b"gap!" * 256 + parts[2] + bytes(SECTOR) + parts[0] + parts[1] + bytes(1024) + data[-512:]
    first = (2560 + 1024) // SECTOR
    second = first + block // SECTOR + 1
    table = struct.pack(">3I", second, second + block // SECTOR, first)
    sink = Disk(bytes(disk.size))
    await read_vhd(Stream(moved[:2048] + table + moved[2060:]), sink)
    assert sink.content == disk.content


async def test_sectors_that_a_bitmap_lacks_are_zeros_in_a_full_disk_and_stay_in_a_delta() -> None:
    for delta in (False, True):
        disk = Disk(b"d" * 2 * MIB)
        data = bytearray(await (_delta(disk, [(0, 1)], Parent(uuid.uuid4(), "b")) if delta else _full(disk)))
        data[2560 : 2560 + 512] = b"\x0f" + b"\xff" * 511
        sink = Disk(b"x" * disk.size)
        await read_vhd(Stream(bytes(data)), sink, zero_absent=True)
        assert sink.content[: 4 * SECTOR] == (b"x" if delta else b"\0") * 4 * SECTOR
        assert sink.content[4 * SECTOR :] == disk.content[4 * SECTOR :]


async def test_nothing_behind_the_footer_is_read() -> None:
    disk = Disk(scattered(3 * MIB, 6))
    data = await _full(disk)
    stream = Stream(data + b"what comes next")
    await read_vhd(stream, Disk(bytes(disk.size)))
    assert stream.taken == len(data)


async def test_zeros_in_a_block_are_not_written_as_data() -> None:
    disk = Disk(bytearray(2 * MIB), dense=True)
    disk.content[:5] = b"hello"
    sink = Disk(b"x" * 2 * MIB)
    await read_vhd(Stream(await _full(disk)), sink)
    assert sink.content == disk.content
    assert sink.data_written == 64 << 10


async def test_a_stream_cut_anywhere_is_truncated() -> None:
    disk = Disk(scattered(5 * MIB, 7))
    data = await _full(disk)
    for cut in (0, 1, 511, 512, 700, 1536, 2048, 2050, 2560, 3000, 3072, MIB, len(data) - 513, len(data) - 512):
        with pytest.raises(Truncated):
            await read_vhd(Stream(data[:cut]), Disk(bytes(disk.size)))
    with pytest.raises(Truncated):
        await read_vhd(Stream(data[:-1]), Disk(bytes(disk.size)))


async def test_two_terabytes_in_a_kilobyte_are_truncated() -> None:
    footer = Footer(DiskType.DYNAMIC, 2040 << 30, uuid.uuid4(), 512, 2040 << 30).pack()
    with pytest.raises(Truncated, match="header"):
        await read_vhd(Stream(footer + bytes(512)), Disk(bytes(MIB)))
    data = bytearray(await _full(Disk(bytes(MIB))))
    data[:512] = footer
    data[512 + 28 : 512 + 32] = struct.pack(">I", 1020 << 10)
    _sum(data, 512, 1024, 36)
    with pytest.raises(Truncated, match="block allocation table"):
        await read_vhd(Stream(bytes(data[:4096])), Disk(bytes(MIB)))


async def test_a_table_too_small_for_the_size_is_refused() -> None:
    data = bytearray(await _full(Disk(scattered(5 * MIB, 1))))
    data[48:56] = struct.pack(">Q", 1 << 30)
    _sum(data, 0, 512, 64)
    with pytest.raises(FormatError, match="table of 3 blocks"):
        await read_vhd(Stream(bytes(data)), Disk(bytes(1 << 20)))


async def test_overlapping_blocks_are_refused() -> None:
    data = bytearray(await _full(Disk(scattered(6 * MIB, 5, 12), dense=True)))
    first = struct.unpack(">I", data[2048:2052])[0]
    for wrong in (first, first + 1, 0, 4):
        data[2052:2056] = struct.pack(">I", wrong)
        with pytest.raises(FormatError, match="before"):
            await read_vhd(Stream(bytes(data)), Disk(bytes(6 * MIB)))


async def test_a_larger_disk_is_taken_as_long_as_what_does_not_fit_is_zeros() -> None:
    disk = Disk(bytearray(4 * MIB))
    disk.content[:4] = b"data"
    small = Disk(b"x" * 3 * MIB)
    await read_vhd(Stream(await _full(disk)), small, zero_absent=True)
    assert small.content == disk.content[: 3 * MIB]
    disk.content[-1:] = b"!"
    with pytest.raises(FormatError, match="the disk has 3145728 bytes"):
        await read_vhd(Stream(await _full(disk)), small)


async def test_something_else_is_refused() -> None:
    for other in (b"QFI\xfb" + bytes(5000), b"conectix" + bytes(5000), bytes(511) + b"x"):
        with pytest.raises(FormatError):
            await read_vhd(Stream(other), Disk(bytes(MIB)))
    one, two = await _full(Disk(bytes(MIB))), await _full(Disk(bytes(MIB)))
    with pytest.raises(FormatError, match="another disk"):
        await read_vhd(Stream(one[:-512] + two[-512:]), Disk(bytes(MIB)))


async def test_a_disk_over_2040_gib_is_refused() -> None:
    class Huge(Disk):
        @property
        def size(self) -> int:
            return (2040 << 30) + 512

    with pytest.raises(FormatError, match="at most"):
        await plan_full(Huge(b""))


async def test_an_error_of_the_disk_ends_the_transfer() -> None:
    class Full(Disk):
        async def write(self, offset: int, data: Data) -> None:
            raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        await read_vhd(Stream(await _full(Disk(scattered(5 * MIB, 1)))), Full(bytes(5 * MIB)))
    with pytest.raises(OSError, match="no space"):
        await write_vhd(_Failing(scattered(5 * MIB, 1)), Stream(), await plan_full(Disk(scattered(5 * MIB, 1))))


class _Failing(Disk):
    async def read(self, offset: int, length: int) -> bytes:
        raise OSError(28, "no space")


def _sum(data: bytearray, at: int, length: int, field: int) -> None:
    data[at + field : at + field + 4] = struct.pack(">I", checksum(data[at : at + length], field))
