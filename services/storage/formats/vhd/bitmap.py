"""Which sectors of a VHD's blocks are present (most significant bit first), and the BAT and batmap over the blocks."""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd.footer import SECTOR, VERSION, checksum

UNUSED: Final = 0xFFFF_FFFF
BATMAP_HEADER_SIZE: Final = 512

_RUNS: Final = re.compile("0+|1+")
_BATMAP: Final = struct.Struct(">8sQIIIB")
_BATMAP_COOKIE: Final = b"tdbatmap"
_BATMAP_VERSION: Final = 0x0001_0002


class Run(NamedTuple):
    """Sectors of a block, from `begin` to before `end`, that are all present or all absent."""

    begin: int
    end: int
    present: bool


def runs(bitmap: bytes | bytearray, begin: int, end: int) -> Iterator[Run]:
    """Of the sectors from `begin` to before `end`."""
    count = len(bitmap) * 8
    bits = int.from_bytes(bitmap, "big") >> (count - end) & ((1 << end - begin) - 1)
    if not bits:
        yield Run(begin, end, False)
    elif bits == (1 << end - begin) - 1:
        yield Run(begin, end, True)
    else:
        for match in _RUNS.finditer(f"{bits:0{end - begin}b}"):
            yield Run(begin + match.start(), begin + match.end(), match[0][0] == "1")


def with_sectors(bitmap: bytes | bytearray, begin: int, end: int) -> bytes:
    """The bitmap with the sectors from `begin` to before `end` present."""
    mask = (1 << end - begin) - 1 << len(bitmap) * 8 - end
    return (int.from_bytes(bitmap, "big") | mask).to_bytes(len(bitmap), "big")


def is_full(bitmap: bytes | bytearray, sectors: int) -> bool:
    """Whether the first so many sectors are present."""
    return int.from_bytes(bitmap, "big") >> (len(bitmap) * 8 - sectors) == (1 << sectors) - 1


def bat_size(entries: int) -> int:
    """Bytes of a BAT in a file, padded to sectors."""
    return -(-entries * 4 // SECTOR) * SECTOR


def empty_bat(entries: int) -> array[int]:
    return array("I", [UNUSED]) * entries


def parse_bat(data: bytes, entries: int) -> array[int]:
    bat = array("I", data[: entries * 4])
    if sys.byteorder == "little":
        bat.byteswap()
    return bat


def pack_bat(bat: array[int]) -> bytes:
    """Padded to sectors with unused entries."""
    copy = array("I", bat)
    if sys.byteorder == "little":
        copy.byteswap()
    return copy.tobytes().ljust(bat_size(len(bat)), b"\xff")


class BatmapHeader(NamedTuple):
    """`offset`, `sectors`: where the map is, whose bits say of which blocks all sectors are present."""

    offset: int
    sectors: int
    marker: int = 0

    def pack(self, batmap: bytes) -> bytes:
        """512 bytes. The checksum is over the map, padded."""
        fields = _BATMAP.pack(
            *(_BATMAP_COOKIE, self.offset, self.sectors, _BATMAP_VERSION, batmap_checksum(batmap), self.marker)
        )
        return fields.ljust(BATMAP_HEADER_SIZE, b"\0")


def batmap_checksum(batmap: bytes) -> int:
    """Over the map, padded."""
    return checksum(batmap, len(batmap))


def parse_batmap_header(data: bytes, at: int) -> tuple[BatmapHeader, int] | None:
    """The header and the map's checksum; None if there is none. Raises `FormatError`."""
    if not data.startswith(_BATMAP_COOKIE) or len(data) < _BATMAP.size:
        return None
    _, offset, sectors, version, summed, marker = _BATMAP.unpack_from(data)
    if version >> 16 != VERSION >> 16:
        raise FormatError(f"VHD batmap at {at}: version {version:#x}, only 1.x is known")
    if offset % SECTOR or sectors > 1 << 20:
        raise FormatError(f"VHD batmap at {at}: map of {sectors} sectors at {offset:#x}")
    return BatmapHeader(offset, sectors, marker), summed
