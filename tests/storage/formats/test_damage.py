"""Whatever bytes are changed, a format says so in its own way or reads on: it never fails otherwise, nor hangs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage.formats.cbt import new_log, parse_log
from services.storage.formats.interface import FormatError, Input, Sink
from services.storage.formats.qcow2 import reader as qcow2_reader
from services.storage.formats.qcow2 import writer as qcow2_writer
from services.storage.formats.raw import plan_chunks, read_chunks, write_chunks
from services.storage.formats.tar import read_tar, write_tar
from services.storage.formats.vhd import writer as vhd_writer
from services.storage.formats.vhd.chain import Chain
from services.storage.formats.vhd.change import resize
from services.storage.formats.vhd.check import problems
from services.storage.formats.vhd.create import create_dynamic
from services.storage.formats.vhd.footer import checksum
from services.storage.formats.vhd.image import Image
from services.storage.formats.vhd.reader import read_vhd
from tests.storage.formats.disks import Disk, Stream, scattered
from tests.storage.formats.files import MemoryFile

MIB = 1 << 20
CHANGES = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 600),
            st.integers(512, 2700),
            st.sampled_from([16, 48, 512 + 16, 512 + 28, 512 + 32, 2048, 4 * 65536, 3 * 65536]),
            st.integers(0, 400_000),
        ),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


async def _vhd(disk: Disk, stream: Stream) -> None:
    await vhd_writer.write_vhd(disk, stream, await vhd_writer.plan_full(disk))


async def _qcow2(disk: Disk, stream: Stream) -> None:
    await qcow2_writer.write_qcow2(disk, stream, await qcow2_writer.plan_full(disk))


async def _chunks(disk: Disk, stream: Stream) -> None:
    await write_chunks(disk, stream, await plan_chunks(disk))


async def _tar(disk: Disk, stream: Stream) -> None:
    await write_tar(disk, stream, "d")


@pytest.mark.parametrize(
    ("write", "read"),
    [(_vhd, read_vhd), (_qcow2, qcow2_reader.read_qcow2), (_chunks, read_chunks), (_tar, read_tar)],
    ids=["vhd", "qcow2", "chunks", "tar"],
)
@given(changes=CHANGES)
@settings(max_examples=12, deadline=None)
async def test_a_damaged_stream_is_refused_or_read(
    write: Callable[[Disk, Stream], Awaitable[None]],
    read: Callable[[Input, Sink], Awaitable[object]],
    changes: list[tuple[int, bytes]],
) -> None:
    disk = Disk(scattered(MIB + 512, 1, 2), grain=65536)
    stream = Stream()
    await write(disk, stream)
    data = _changed(bytes(stream.data), changes)
    with suppress(FormatError):
        await read(Stream(data), Disk(bytes(disk.size)))


@given(CHANGES, st.integers(0, 4096))
@settings(max_examples=30, deadline=None)
def test_a_damaged_image_is_refused_or_read(changes: list[tuple[int, bytes]], cut: int) -> None:
    image = create_dynamic(file := MemoryFile(), MIB)
    image.write(0, b"x" * 4096)
    content = _changed(bytes(file.content), changes)
    for damaged in (content, content[: len(content) - cut]):
        assert all(problems(MemoryFile(damaged)))
        for writable in (False, True):
            with suppress(FormatError), Chain(["a"], [Image.open(MemoryFile(damaged), writable)]) as chain:
                chain.read(0, min(chain.size, MIB))
                if writable:
                    chain.write(512, b"y" * 512)
                    resize(chain.leaf, chain.size)


@given(CHANGES)
def test_a_damaged_log_is_refused_or_read(changes: list[tuple[int, bytes]]) -> None:
    with suppress(FormatError):
        parse_log(_changed(new_log(MIB).pack(), changes))


def _changed(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    """With VHD's checksums made right again, so that what is behind them is reached."""
    changed = bytearray(data)
    for at, value in changes:
        at %= len(changed)
        value = value[: len(changed) - at]
        changed[at : at + len(value)] = value
    if data.startswith(b"conectix"):
        for at, length, field in ((0, 512, 64), (512, 1024, 36)):
            changed[at + field : at + field + 4] = checksum(changed[at : at + length], field).to_bytes(4, "big")
        changed[-512:] = changed[:512]
    return bytes(changed)
