"""A disk with what has changed in it since another one, as QEMU knows it: an image without data of its own over the
disk, whose dirty bitmap has the changed blocks (QEMU's docs/interop/qcow2.txt, "Bitmaps").

It is held in memory only, so there is nothing to be removed after a crash.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

from services.storage.formats.qcow2.header import CLUSTER_SIZE, HEADER_V3, Header
from services.storage.plugins.interface import Changed

_AUTOCLEAR_AT: Final = 88
"""Where the header has the features that a program which does not know them has to clear."""
_BITMAPS: Final = 1
_BACKING_AT: Final = 8
_EXTENSION: Final = struct.Struct(">II")
_BITMAPS_EXTENSION, _FORMAT_EXTENSION, _END = 0x23852875, 0xE2792ACA, 0
_BITMAPS_DATA: Final = struct.Struct(">IIQQ")
_DIRECTORY: Final = struct.Struct(">QIIBBHI")
_DIRTY_TRACKING: Final = 1
_SECTOR: Final = 512
_REFCOUNTS: Final = CLUSTER_SIZE // 2
"""Refcounts in a block."""
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""The API's bitmaps begin with the most significant bit of a byte, QEMU's with the least."""


class ChangesImage:
    """The image. `path`: where qemu-nbd opens it, as long as this is not closed."""

    def __init__(self, size: int, changed: Changed, name: str, backing: str, format: str) -> None:
        """`size`: bytes of the disk. `backing`, `format`: as QEMU calls them. Raises OSError, ValueError."""
        self._fd = os.memfd_create("nbd-changes")
        try:
            for offset, data in parts(size, changed, name, backing, format):
                os.pwrite(self._fd, data, offset)
        except BaseException:
            os.close(self._fd)
            raise
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        os.close(self._fd)


def parts(size: int, changed: Changed, name: str, backing: str, format: str) -> Iterator[tuple[int, bytes]]:
    """What the image holds, by offset; the rest is zeros. Raises ValueError for blocks that QEMU has no bitmap of."""
    granularity = changed.granularity.bit_length() - 1
    if changed.granularity != 1 << granularity or not 9 <= granularity <= 31:
        raise ValueError(f"blocks of {changed.granularity} bytes")
    size = -(-size // _SECTOR) * _SECTOR
    bits = -(-size // changed.granularity)
    bitmap = changed.bitmap[: -(-bits // 8)].ljust(-(-bits // 8), b"\0").translate(_REVERSED)
    pieces = [bitmap[begin : begin + CLUSTER_SIZE] for begin in range(0, len(bitmap), CLUSTER_SIZE)]
    l1_entries = -(-size // (CLUSTER_SIZE * (CLUSTER_SIZE // 8)))
    l1, table = _clusters(l1_entries * 8), _clusters(len(pieces) * 8)
    fixed = 1 + l1 + 1 + table + sum(map(any, pieces))  # header, L1, directory, table, bitmap
    blocks = _refcount_blocks(fixed)
    refcount_table = _clusters(blocks * 8)
    l1_at = 1 + refcount_table + blocks
    directory_at = l1_at + l1
    table_at = directory_at + 1
    data_at = table_at + table

    header = Header(size, l1_entries, l1_at * CLUSTER_SIZE, CLUSTER_SIZE, refcount_table)
    directory = _directory(table_at * CLUSTER_SIZE, len(pieces), granularity, name.encode())
    yield 0, _head(header, len(directory), directory_at * CLUSTER_SIZE, backing.encode(), format.encode())
    first_block = 1 + refcount_table
    yield CLUSTER_SIZE, b"".join(struct.pack(">Q", (first_block + block) * CLUSTER_SIZE) for block in range(blocks))
    yield first_block * CLUSTER_SIZE, b"\0\1" * (fixed + refcount_table + blocks)
    yield directory_at * CLUSTER_SIZE, directory
    entries: list[int] = []
    for piece in pieces:
        entries.append(data_at * CLUSTER_SIZE if any(piece) else 0)
        if entries[-1]:
            yield entries[-1], piece.ljust(CLUSTER_SIZE, b"\0")
            data_at += 1
    yield table_at * CLUSTER_SIZE, struct.pack(f">{len(entries)}Q", *entries)


def _clusters(length: int) -> int:
    return -(-length // CLUSTER_SIZE)


def _refcount_blocks(others: int) -> int:
    """That count themselves, and their table."""
    blocks = 1
    while blocks * _REFCOUNTS < others + blocks + _clusters(blocks * 8):
        blocks += 1
    return blocks


def _head(header: Header, directory: int, directory_at: int, backing: bytes, format: bytes) -> bytes:
    head = bytearray(header.pack()[:HEADER_V3])
    struct.pack_into(">Q", head, _AUTOCLEAR_AT, _BITMAPS)
    head += _extension(_FORMAT_EXTENSION, format)
    head += _extension(_BITMAPS_EXTENSION, _BITMAPS_DATA.pack(1, 0, directory, directory_at))
    head += _extension(_END, b"")
    struct.pack_into(">QI", head, _BACKING_AT, len(head), len(backing))
    return bytes(head) + backing


def _extension(kind: int, data: bytes) -> bytes:
    return _EXTENSION.pack(kind, len(data)) + _aligned(data)


def _directory(table_at: int, pieces: int, granularity: int, name: bytes) -> bytes:
    """With one bitmap, which nobody adds to."""
    return _aligned(_DIRECTORY.pack(table_at, pieces, 0, _DIRTY_TRACKING, granularity, len(name), 0) + name)


def _aligned(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 8) * 8, b"\0")
