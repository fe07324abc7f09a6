from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage.formats.interface import FormatError, Truncated
from services.storage.formats.qcow2.reader import read_qcow2
from services.storage.formats.qcow2.writer import plan_changed, plan_full, write_qcow2
from tests.storage.formats import qemu
from tests.storage.formats.disks import Disk, Sparse, Stream, scattered

MIB = 1 << 20
CLUSTER = 64 << 10
TABLE = 512 * MIB
"""Bytes of a disk that one L2 table is for."""
SIZES = st.integers(1, 5 * MIB // 512).map(lambda sectors: sectors * 512)


async def _full(disk: Disk) -> bytes:
    stream = Stream()
    plan = await plan_full(disk)
    await write_qcow2(disk, stream, plan)
    assert len(stream.data) == plan.length
    return bytes(stream.data)


async def _changed(disk: Disk, changed: list[tuple[int, int]]) -> bytes:
    stream = Stream()
    plan = await plan_changed(disk, changed)
    await write_qcow2(disk, stream, plan)
    assert len(stream.data) == plan.length
    return bytes(stream.data)


@given(SIZES, st.integers(0, 1000), st.booleans())
@settings(max_examples=8, deadline=None)
async def test_a_stream_makes_the_disk_again(size: int, seed: int, dense: bool) -> None:
    disk = Disk(scattered(size, seed), dense=dense)
    copy = Disk(b"x" * size)
    assert await read_qcow2(Stream(await _full(disk)), copy, zero_absent=True) == size
    assert copy.content == disk.content
    assert copy.flushed


@given(st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 5 * MIB), st.integers(0, MIB)), max_size=4))
@settings(max_examples=8, deadline=None)
async def test_changed_clusters_bring_a_base_up_to_date(seed: int, changed: list[tuple[int, int]]) -> None:
    base = Disk(scattered(5 * MIB, seed))
    disk = Disk(base.content)
    for number, (offset, length) in enumerate(changed):
        end = min(disk.size, offset + length)
        disk.content[offset:end] = bytes([number]) * (end - offset)
    await read_qcow2(Stream(await _changed(disk, changed)), base)
    assert base.content == disk.content


async def test_what_became_zeros_is_sent_without_data() -> None:
    disk = Disk(bytes(16 * MIB))
    data = await _changed(disk, [(MIB, 12 * MIB)])
    assert len(data) == 5 * CLUSTER
    sink = Disk(b"x" * disk.size)
    await read_qcow2(Stream(data), sink)
    assert sink.content == b"x" * MIB + bytes(12 * MIB) + b"x" * 3 * MIB


async def test_a_disk_of_many_tables_is_sound(tmp_path: Path) -> None:
    size = 4 * TABLE + CLUSTER + 512
    disk = Sparse(size, {7: b"a" * CLUSTER, TABLE - CLUSTER: b"b" * 3 * CLUSTER, size - 512: b"c" * 512})
    ours, raw = tmp_path / "ours.qcow2", tmp_path / "raw"
    stream = Stream()
    await write_qcow2(disk, stream, await plan_full(disk))
    ours.write_bytes(stream.data)
    disk.save(raw)
    qemu.check(ours)
    qemu.compare(ours, "qcow2", raw, "raw")
    sink = Sparse(size, {})
    await read_qcow2(Stream(bytes(stream.data)), sink)
    sink.save(tmp_path / "copy")
    qemu.compare(tmp_path / "copy", "raw", raw, "raw")


@pytest.mark.parametrize("size", [512, CLUSTER, 5 * MIB + 1536])
async def test_qemu_reads_what_we_write_and_finds_it_sound(tmp_path: Path, size: int) -> None:
    disk = Disk(scattered(size, 3), grain=CLUSTER)
    ours, raw = tmp_path / "ours.qcow2", tmp_path / "raw"
    ours.write_bytes(await _full(disk))
    raw.write_bytes(disk.content)
    qemu.check(ours)
    qemu.compare(ours, "qcow2", raw, "raw")
    assert qemu.info(ours, "qcow2")["virtual-size"] == size
    ours.write_bytes(await _changed(disk, [(0, 1), (size - 1, 1)]))
    qemu.check(ours)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-c",),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "compat=0.10"),
        ("-o", "preallocation=metadata"),
        ("-o", "preallocation=full"),
        ("-o", "refcount_bits=1"),
        ("-c", "-o", "cluster_size=4k"),
        ("-W", "-S", "0"),
    ],
)
async def test_we_read_what_qemu_img_convert_writes(tmp_path: Path, options: tuple[str, ...]) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(scattered(5 * MIB + 1536, 4, 12))
    theirs = qemu.convert(raw, "raw", tmp_path / "theirs", "qcow2", *options).read_bytes()
    sink = Disk(b"x" * raw.stat().st_size)
    await read_qcow2(Stream(theirs, chunk=3000), sink, zero_absent=True)
    assert sink.content == raw.read_bytes()
    for cut in (50, 1000, len(theirs) // 2):
        with pytest.raises(Truncated):
            await read_qcow2(Stream(theirs[:cut]), Disk(bytes(sink.size)))


async def test_tables_between_data_are_followed(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        for number in range(3):
            file.seek(number * TABLE + 7 * CLUSTER)
            file.write(bytes([number + 1]) * 3 * CLUSTER)
        file.truncate(3 * TABLE)
    theirs = qemu.convert(raw, "raw", tmp_path / "theirs", "qcow2").read_bytes()

    sink = Sparse(3 * TABLE, {})
    await read_qcow2(Stream(theirs), sink)
    assert sink.pieces == {number * TABLE + 7 * CLUSTER: bytes([number + 1]) * 3 * CLUSTER for number in range(3)}


async def test_an_image_on_another_is_only_taken_for_its_differences(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"x" * MIB)
    base = qemu.convert(raw, "raw", tmp_path / "base", "qcow2")
    raw.write_bytes(b"x" * CLUSTER + b"y" * CLUSTER + b"x" * (MIB - 2 * CLUSTER))
    over = qemu.convert(raw, "raw", tmp_path / "over", "qcow2", "-B", str(base), "-F", "qcow2").read_bytes()
    with pytest.raises(FormatError, match="backing file"):
        await read_qcow2(Stream(over), Disk(bytes(MIB)))
    sink = Disk(b"x" * MIB)
    await read_qcow2(Stream(over), sink, differences=True)
    assert sink.content == raw.read_bytes()


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"QFI\xfa", "begins with"),
        (4, struct.pack(">I", 4), "version 4"),
        (20, struct.pack(">I", 8), "clusters of 2"),
        (24, struct.pack(">Q", 1 << 60), "too few"),
        (32, struct.pack(">I", 1), "encrypted"),
        (36, struct.pack(">I", 0), "too few"),
        (40, struct.pack(">Q", 77), "L1 table at"),
        (72, struct.pack(">Q", 2), "corrupt"),
        (72, struct.pack(">Q", 4), "another file"),
        (72, struct.pack(">Q", 8), "compressed"),
        (72, struct.pack(">Q", 16), "subclusters"),
        (72, struct.pack(">Q", 32), "not known"),
    ],
)
async def test_a_header_that_cannot_be_read_says_why(at: int, value: bytes, message: str) -> None:
    data = bytearray(await _full(Disk(scattered(MIB, 1))))
    data[at : at + len(value)] = value
    with pytest.raises(FormatError, match=message):
        await read_qcow2(Stream(bytes(data)), Disk(bytes(MIB)))


async def test_data_before_its_table_and_two_names_for_one_cluster_are_refused() -> None:
    data = bytearray(await _full(Disk(scattered(MIB, 1, 20), dense=True)))
    l2 = 4 * CLUSTER
    first = struct.unpack(">Q", data[l2 : l2 + 8])[0]
    for wrong in (first, first & ~0xFFFF_FFFF, first & ~0xFFFF_FFFF | 3 * CLUSTER):
        data[l2 + 8 : l2 + 16] = struct.pack(">Q", wrong)
        if wrong & 0xFFFF_FFFF:
            with pytest.raises(FormatError, match="before"):
                await read_qcow2(Stream(bytes(data)), Disk(bytes(MIB)))
    data[l2 + 8 : l2 + 16] = struct.pack(">Q", first + 512)
    with pytest.raises(FormatError, match="no cluster"):
        await read_qcow2(Stream(bytes(data)), Disk(bytes(MIB)))


async def test_two_terabytes_in_a_kilobyte_are_truncated() -> None:
    data = bytearray(await _full(Disk(bytes(MIB))))
    data[24:32] = struct.pack(">Q", 2 << 40)
    data[36:40] = struct.pack(">I", 4096)
    with pytest.raises(Truncated):
        await read_qcow2(Stream(bytes(data[:1024])), Disk(bytes(MIB)))


async def test_a_larger_disk_is_taken_as_long_as_what_does_not_fit_is_zeros() -> None:
    disk = Disk(bytearray(2 * MIB))
    disk.content[:4] = b"data"
    small = Disk(b"x" * MIB)
    await read_qcow2(Stream(await _full(disk)), small, zero_absent=True)
    assert small.content == disk.content[:MIB]
    disk.content[-1:] = b"!"
    with pytest.raises(FormatError, match="the disk has"):
        await read_qcow2(Stream(await _full(disk)), small)


async def test_a_stream_cut_anywhere_is_truncated() -> None:
    disk = Disk(scattered(2 * MIB, 7))
    data = await _full(disk)
    for cut in (0, 103, 104, CLUSTER, 3 * CLUSTER + 1, 4 * CLUSTER + 5, 5 * CLUSTER, len(data) - 1):
        with pytest.raises(Truncated):
            await read_qcow2(Stream(data[:cut]), Disk(bytes(disk.size)))
