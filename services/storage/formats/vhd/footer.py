"""The 512 bytes that end every VHD, and of which a dynamic one has a copy at its start ("Virtual Hard Disk Image Format
Specification" 1.0). All numbers are big-endian.
"""

from __future__ import annotations

import struct
import time
import uuid as uuids
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, NamedTuple

from services.storage.formats.interface import FormatError

SECTOR: Final = 512
FOOTER_SIZE: Final = 512
MAX_SIZE: Final = 2040 << 30
"""Bytes of the largest disk that the format's other readers accept; a BAT entry addresses 2 TiB of file."""
NOWHERE: Final = 0xFFFF_FFFF_FFFF_FFFF
"""The data offset of a fixed disk, and of a header."""
VERSION: Final = 0x0001_0000

_COOKIE: Final = b"conectix"
_FEATURES: Final = 2
_FIELDS: Final = struct.Struct(">8sIIQI4sI4sQQHBBII16sBB")
_CHECKSUM_AT: Final = 64
_EPOCH: Final = 946_684_800  # 2000-01-01T00:00:00Z


class DiskType(IntEnum):
    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


class Geometry(NamedTuple):
    cylinders: int
    heads: int
    sectors: int


def geometry(size: int) -> Geometry:
    """The CHS that the specification derives from a size in bytes (appendix "CHS calculation"); often less than it."""
    total = min(size // SECTOR, 65535 * 16 * 255)
    if total > 65535 * 16 * 63:
        heads, sectors, tracks = 16, 255, total // 255
    else:
        sectors = 17
        tracks = total // sectors
        heads = max(4, (tracks + 1023) // 1024)
        if tracks >= heads * 1024 or heads > 16:
            heads, sectors = 16, 31
            tracks = total // sectors
        if tracks >= heads * 1024:
            heads, sectors = 16, 63
            tracks = total // sectors
    return Geometry(tracks // heads, heads, sectors)


def checksum(data: bytes | bytearray, at: int) -> int:
    """One's complement of the sum of all bytes, but for the four of the checksum itself, which lie at `at`."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFF_FFFF


def stamp(seconds: float) -> int:
    """VHD's time stamp of a Unix time."""
    return max(0, int(seconds) - _EPOCH) & 0xFFFF_FFFF


def now() -> int:
    return stamp(time.time())


def check_size(size: int) -> None:
    """Raises `FormatError` for a disk that cannot be a VHD; `size` in bytes."""
    if not 0 < size <= MAX_SIZE or size % SECTOR:
        raise FormatError(f"a VHD holds whole sectors of 512 bytes, at most {MAX_SIZE} bytes, not {size}")


@dataclass(frozen=True, slots=True)
class Footer:
    """`size`: bytes of the disk. `original_size`: as it was created. `timestamp`: seconds since 2000.

    `chs`: as it was found, whatever its writer made of the size; None: what the specification makes of it.
    """

    type: DiskType
    size: int
    uuid: uuids.UUID
    data_offset: int
    original_size: int
    timestamp: int = 0
    creator: bytes = b"tap\0"
    creator_version: int = 0x0001_0003
    creator_os: bytes = b"\0\0\0\0"
    saved: int = 0
    hidden: bool = False
    chs: Geometry | None = None

    def pack(self) -> bytes:
        chs = geometry(self.size) if self.chs is None else self.chs
        data = bytearray(
            _FIELDS.pack(
                *(_COOKIE, _FEATURES, VERSION, self.data_offset, self.timestamp),
                *(self.creator, self.creator_version, self.creator_os, self.original_size, self.size),
                *(chs.cylinders, chs.heads, chs.sectors, self.type, 0, self.uuid.bytes, self.saved, int(self.hidden)),
            ).ljust(FOOTER_SIZE, b"\0")
        )
        struct.pack_into(">I", data, _CHECKSUM_AT, checksum(data, _CHECKSUM_AT))
        return bytes(data)

    def resized(self, size: int) -> Footer:
        check_size(size)
        return replace(self, size=size, chs=None)


def looks_like_footer(data: bytes) -> bool:
    return data.startswith(_COOKIE)


def parse_footer(data: bytes, where: str) -> Footer:
    """`where` says in messages which footer it is. Raises `FormatError`."""

    def wrong(what: str) -> FormatError:
        return FormatError(f"VHD footer {where}: {what}")

    if len(data) != FOOTER_SIZE:
        raise wrong(f"{len(data)} bytes instead of {FOOTER_SIZE}")
    fields = _FIELDS.unpack_from(data)
    cookie, _features, version, data_offset, timestamp, creator, creator_version, creator_os = fields[:8]
    original_size, size, cylinders, heads, sectors, type_, summed, uuid, saved, hidden = fields[8:]
    if cookie != _COOKIE:
        raise wrong(f"begins with {cookie!r} instead of {_COOKIE!r}")
    if summed != (computed := checksum(data, _CHECKSUM_AT)):
        raise wrong(f"checksum {summed:#010x}, computed {computed:#010x}")
    if version >> 16 != VERSION >> 16:
        raise wrong(f"version {version:#x}, only 1.x is known")
    if type_ not in tuple(DiskType):
        raise wrong(f"disk type {type_}, known are 2 (fixed), 3 (dynamic) and 4 (differencing)")
    if not size or size % SECTOR:
        raise wrong(f"size {size} is not a number of whole sectors")
    if type_ != DiskType.FIXED and (data_offset == NOWHERE or data_offset < FOOTER_SIZE or data_offset % SECTOR):
        raise wrong(f"header at {data_offset:#x}, which is not a sector after the footer's copy")
    if hidden > 1:
        raise wrong(f"hidden is {hidden} instead of 0 or 1")
    return Footer(
        type=DiskType(type_),
        size=size,
        uuid=uuids.UUID(bytes=uuid),
        data_offset=data_offset,
        original_size=original_size,
        timestamp=timestamp,
        creator=creator,
        creator_version=creator_version,
        creator_os=creator_os,
        saved=saved,
        hidden=bool(hidden),
        chs=Geometry(cylinders, heads, sectors),
    )
