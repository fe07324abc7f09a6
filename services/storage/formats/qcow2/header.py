"""The header of qcow2 images, versions 2 and 3 (QEMU's docs/interop/qcow2.txt). All numbers are big-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from services.storage.formats.interface import FormatError

CLUSTER_BITS: Final = 16
CLUSTER_SIZE: Final = 1 << CLUSTER_BITS
"""Of what we write."""
COPIED: Final = 1 << 63
COMPRESSED: Final = 1 << 62
ZERO: Final = 1
OFFSET: Final = 0x00FF_FFFF_FFFF_FE00
HEADER_V2: Final = 72
HEADER_V3: Final = 104
MAX_L1: Final = 4 << 20
"""Entries, as QEMU takes them."""

_MAGIC: Final = b"QFI\xfb"
_V2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_V3: Final = struct.Struct(">QQQII")
_DIRTY: Final = 1 << 0
_CORRUPT: Final = 1 << 1
_EXTERNAL: Final = 1 << 2
_COMPRESSION: Final = 1 << 3
_EXTENDED_L2: Final = 1 << 4


@dataclass(frozen=True, slots=True)
class Header:
    """`size`: bytes of the disk. `l1_entries` at `l1_offset`. `backing`: the image names another one behind it."""

    size: int
    l1_entries: int
    l1_offset: int
    refcounts_offset: int
    refcounts_clusters: int
    cluster_bits: int = CLUSTER_BITS
    backing: bool = False

    def pack(self) -> bytes:
        """A version 3 header without backing file and with no extension but the end's; 112 bytes."""
        v2 = _V2.pack(
            *(_MAGIC, 3, 0, 0, self.cluster_bits, self.size, 0, self.l1_entries, self.l1_offset),
            *(self.refcounts_offset, self.refcounts_clusters, 0, 0),
        )
        return v2 + _V3.pack(0, 0, 0, 4, HEADER_V3) + bytes(8)

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        """Of one L2 table, which is a cluster."""
        return 1 << self.cluster_bits - 3


def parse_header(data: bytes) -> Header:
    """From the first `HEADER_V3` bytes or more. Raises `FormatError` for what cannot be read, saying why."""

    def wrong(what: str) -> FormatError:
        return FormatError(f"qcow2 header: {what}")

    fields = _V2.unpack_from(data)
    magic, version, backing, _, bits, size, crypt, l1_entries, l1_offset, refcounts, refcounts_clusters = fields[:11]
    if magic != _MAGIC:
        raise wrong(f"begins with {magic!r} instead of {_MAGIC!r}")
    if version not in (2, 3):
        raise wrong(f"version {version}, known are 2 and 3")
    if not 9 <= bits <= 21:
        raise wrong(f"clusters of 2**{bits} bytes, possible are 2**9 to 2**21")
    if crypt:
        raise wrong("the image is encrypted, which cannot be read")
    if version == 3:
        _check_features(_V3.unpack_from(data, HEADER_V2)[0])
    header = Header(size, l1_entries, l1_offset, refcounts, refcounts_clusters, bits, bool(backing))
    needed = -(-size // (header.cluster_size * header.l2_entries))
    if needed > l1_entries:
        raise wrong(f"{l1_entries} L1 entries are too few for {size} bytes, which need {needed}")
    if needed > MAX_L1:
        raise wrong(f"{size} bytes in clusters of {header.cluster_size} need {needed} L1 entries")
    if needed and (l1_offset < header.cluster_size or l1_offset % header.cluster_size):
        raise wrong(f"L1 table at {l1_offset:#x}, which is no cluster behind the header")
    return header


def _check_features(incompatible: int) -> None:
    for bit, what in (
        (_CORRUPT, "the image is marked as corrupt"),
        (_EXTERNAL, "the data is in another file"),
        (_COMPRESSION, "clusters are compressed with something else than deflate"),
        (_EXTENDED_L2, "clusters are divided into subclusters"),
    ):
        if incompatible & bit:
            raise FormatError(f"qcow2 header: {what}, which cannot be read from a stream")
    if unknown := incompatible & ~_DIRTY:
        raise FormatError(f"qcow2 header: incompatible features {unknown:#x} are not known")
