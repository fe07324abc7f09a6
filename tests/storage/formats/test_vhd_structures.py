from __future__ import annotations

import struct
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd import bitmap as bits
from services.storage.formats.vhd.footer import NOWHERE, DiskType, Footer, checksum, geometry, parse_footer
from services.storage.formats.vhd.header import (
    ABSOLUTE,
    MAC_URL,
    RELATIVE,
    Header,
    Locator,
    decode_path,
    encode_path,
    parse_header,
)

GIB = 1 << 30
FOOTER = Footer(DiskType.DYNAMIC, GIB, uuid.UUID(int=7), 512, GIB)
HEADER = Header(bat_offset=1536, entries=512)


@given(
    st.integers(1, 4 << 30).map(lambda sectors: sectors * 512),
    st.sampled_from(DiskType),
    st.uuids(),
    st.booleans(),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_a_footer_reads_as_it_was_written(
    size: int, type_: DiskType, uuid_: uuid.UUID, hidden: bool, creator: bytes, timestamp: int
) -> None:
    offset = NOWHERE if type_ is DiskType.FIXED else 512
    footer = Footer(type_, size, uuid_, offset, size, timestamp, creator, 9, b"Wi2k", 1, hidden, geometry(size))
    packed = footer.pack()
    assert len(packed) == 512
    assert parse_footer(packed, "here") == footer


@given(
    st.uuids(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=100),
    st.lists(
        st.builds(
            Locator,
            st.sampled_from((MAC_URL, RELATIVE, ABSOLUTE)),
            st.just(1024),
            st.integers(0, 1024),
            st.integers(0, 1 << 20).map(lambda sector: sector * 512),
        ),
        min_size=8,
        max_size=8,
    ),
)
def test_a_header_reads_as_it_was_written(parent: uuid.UUID, name: str, locators: list[Locator]) -> None:
    header = replace(HEADER, parent_uuid=parent, parent_name=name, parent_mtime=5, locators=tuple(locators))
    packed = header.pack()
    assert len(packed) == 1024
    assert parse_header(packed, 512) == header


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"conectiX", "begins with"),
        (12, struct.pack(">I", 0x20000), "version"),
        (16, struct.pack(">Q", 100), "header at 0x64"),
        (48, struct.pack(">Q", 513), "whole sectors"),
        (48, struct.pack(">Q", 0), "whole sectors"),
        (60, struct.pack(">I", 5), "disk type 5"),
        (85, b"\x02", "hidden"),
    ],
)
def test_a_wrong_field_of_a_footer_is_named(at: int, value: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=rf"footer at 0: .*{message}"):
        parse_footer(_with(FOOTER.pack(), at, value, 64), "at 0")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"cxsparsf", "begins with"),
        (16, struct.pack(">Q", 1537), "block allocation table at"),
        (24, struct.pack(">I", 0), "version"),
        (28, struct.pack(">I", 1 << 31), "entries"),
        (32, struct.pack(">I", 3 << 20), "block size"),
        (32, struct.pack(">I", 0), "block size"),
        (64, b"\xd8\x00\xd8\x00", "UTF-16"),
        (576, struct.pack(">4sIIIQ", b"W2ru", 512, 600, 0, 2048), "locator 0"),
        (576, struct.pack(">4sIIIQ", b"W2ru", 1 << 31, 1 << 30, 0, 2048), "locator 0"),
    ],
)
def test_a_wrong_field_of_a_header_is_named(at: int, value: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=rf"header at 512: .*{message}"):
        parse_header(_with(HEADER.pack(), at, value, 36), 512)


@given(st.integers(0, 511), st.integers(1, 255))
def test_any_changed_byte_of_a_footer_is_noticed(at: int, change: int) -> None:
    data = bytearray(FOOTER.pack())
    data[at] ^= change
    with pytest.raises(FormatError):
        parse_footer(bytes(data), "here")


@pytest.mark.parametrize(
    ("size", "chs"),
    [
        (40 << 20, (963, 5, 17)),
        (1 << 30, (2080, 16, 63)),
        (20 << 30, (41610, 16, 63)),
        (2040 << 30, (65535, 16, 255)),
    ],
)
def test_geometry_is_that_of_other_tools(size: int, chs: tuple[int, int, int]) -> None:
    assert geometry(size) == chs


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\\"), min_size=1, max_size=60))
def test_a_path_comes_back_from_every_kind_of_locator(name: str) -> None:
    path = name if name.startswith(("/", "./", "../")) else f"./{name}"
    for code in (MAC_URL, RELATIVE, ABSOLUTE):
        assert decode_path(code, encode_path(code, name)) == path


@given(st.integers(0, 4095), st.integers(1, 4096), st.integers(0, 4095), st.integers(1, 4096))
def test_runs_of_a_bitmap_are_what_was_set(first: int, count: int, asked: int, length: int) -> None:
    first, last = first, min(4096, first + count)
    begin, end = asked, min(4096, asked + length)
    bitmap = bits.with_sectors(bytes(512), first, last)
    assert bits.is_full(bitmap, 4096) is (last - first == 4096)
    said = {}
    for run in bits.runs(bitmap, begin, end):
        said.update(dict.fromkeys(range(run.begin, run.end), run.present))
    assert said == {sector: first <= sector < last for sector in range(begin, end)}
    assert all(bool(bitmap[sector // 8] & 0x80 >> sector % 8) is present for sector, present in said.items())


def _with(data: bytes, at: int, value: bytes, checksum_at: int) -> bytes:
    changed = bytearray(data)
    changed[at : at + len(value)] = value
    changed[checksum_at : checksum_at + 4] = struct.pack(">I", checksum(changed, checksum_at))
    return bytes(changed)
