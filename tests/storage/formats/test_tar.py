from __future__ import annotations

import hashlib
import io
import tarfile
from typing import get_args

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage.formats.interface import FormatError, Truncated
from services.storage.formats.tar import Hash, read_tar, write_tar
from tests.storage.formats.disks import Disk, Stream, scattered

MIB = 1 << 20


async def _tar(disk: Disk, hashed: Hash = "xxhash") -> bytes:
    stream = Stream()
    await write_tar(disk, stream, "Ref:7", hashed)
    return bytes(stream.data)


@given(
    st.integers(1, 6 * MIB), st.integers(0, 1000), st.booleans(), st.sampled_from([hashed for hashed in get_args(Hash)])
)
@settings(max_examples=8, deadline=None)
async def test_an_archive_makes_the_disk_again(size: int, seed: int, dense: bool, hashed: Hash) -> None:
    disk = Disk(scattered(size, seed, 2), dense=dense)
    copy = Disk(bytes(size))
    assert await read_tar(Stream(await _tar(disk, hashed)), copy, "Ref:7") == size
    assert copy.content == disk.content
    assert copy.flushed


@pytest.mark.parametrize("hashed", ["xxhash", "checksum"])
async def test_other_tools_find_chunks_and_their_checksums(hashed: Hash) -> None:
    disk = Disk(bytearray(4 * MIB + 1000))
    disk.content[2 * MIB + 5] = 1
    archive = _opened(await _tar(disk, hashed))
    names = [f"Ref:7/{number:08d}{suffix}" for number in (0, 2, 4) for suffix in ("", f".{hashed}")]
    assert archive.getnames() == names
    for name in names[::2]:
        data, said = (archive.extractfile(found) for found in (name, f"{name}.{hashed}"))
        assert data is not None
        assert said is not None
        content = data.read()
        assert len(content) == (1000 if name.endswith("4") else MIB)
        expected = xxhash.xxh64_hexdigest(content).upper() if hashed == "xxhash" else hashlib.sha1(content).hexdigest()
        assert said.read().decode() == expected


def _opened(data: bytes) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=io.BytesIO(data))


def _archive(*entries: tuple[str, bytes], end: bool = True) -> Stream:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    used = sum(512 + -(-len(data) // 512) * 512 for _, data in entries)
    return Stream(file.getvalue() if end else file.getvalue()[:used])


def _chunk(name: str, data: bytes) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
    return (name, data), (f"{name}.checksum", hashlib.sha1(data).hexdigest().encode())


async def test_what_other_tools_archive_is_read_and_signs_of_life_take_no_place() -> None:
    disk = Disk(bytes(40))
    await read_tar(
        _archive(*_chunk("a/00000000", b"0" * 10), *_chunk("a/00000001", b""), *_chunk("a/00000003", b"3" * 10)), disk
    )
    assert disk.content == b"0" * 10 + bytes(10) + b"3" * 10 + bytes(10)


async def test_signs_of_life_are_sent_when_much_is_left_out() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 2.0
        return now

    disk = Disk(scattered(12 * MIB, 1, 0))
    stream = Stream()
    await write_tar(disk, stream, "d", clock=clock)
    sizes = [entry.size for entry in _opened(bytes(stream.data))]
    assert 0 in sizes
    copy = Disk(bytes(disk.size))
    await read_tar(Stream(bytes(stream.data)), copy)
    assert copy.content == disk.content


async def test_a_disk_that_is_complete_needs_no_end_of_the_archive() -> None:
    stream = _archive(*_chunk("a/00000000", b"0" * 10), ("b/00000000", b"next"))
    disk = Disk(bytes(10))
    await read_tar(stream, disk)
    assert disk.content == b"0" * 10
    with pytest.raises(Truncated, match="before the archive"):
        await read_tar(_archive(*_chunk("a/00000000", b"0" * 10), end=False), Disk(bytes(20)))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((("a/00000000", b"0"), ("a/00000000.checksum", b"0" * 40)), "computed"),
        ((("a/00000000", b"0"), ("a/00000000.xxhash", b"0" * 16)), "computed"),
        ((("a/00000000", b"0"), ("a/00000001", b"1")), "where the checksum"),
        ((("a/00000000", b"0"),), "where the checksum"),
        ((("a/00000000.checksum", b"0"),), "does not follow"),
        ((*_chunk("a/00000000", b"0"), *_chunk("a/00000000", b"0")), "comes after number 0"),
        ((*_chunk("a/00000000", b"0"), *_chunk("a/00000001", b"00")), "more than the first"),
        (_chunk("a/00000001", b"0"), "is not chunk 0"),
        (_chunk("b/00000000", b"0"), "is not in 'a"),
        ((("a/README", b"0"),), "no chunk"),
        (_chunk("a/00000000", b"x" * 21), "the disk has 20 bytes"),
        ((*_chunk("a/00000000", b"0"), *_chunk("a/99999999", b"0")), "the disk has 20 bytes"),
        ((), "without a chunk"),
    ],
)
async def test_a_wrong_archive_is_refused(entries: tuple[tuple[str, bytes], ...], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        await read_tar(_archive(*entries), Disk(bytes(20)), "a/")


async def test_damage_and_cuts_are_noticed() -> None:
    disk = Disk(scattered(2 * MIB + 77, 1, 40), dense=True)
    data = await _tar(disk)
    for at in (3, 130, 600, MIB + 600, len(data) - 1530):
        damaged = bytearray(data)
        damaged[at] ^= 0x40
        with pytest.raises(FormatError):
            await read_tar(Stream(bytes(damaged)), Disk(bytes(disk.size)))
    for cut in (0, 100, 512, 700, MIB + 512, MIB + 1024, 2 * MIB):
        with pytest.raises(Truncated):
            await read_tar(Stream(data[:cut]), Disk(bytes(disk.size)))
