"""Changed block tracking: the `.cbtlog` file of a disk, and the bitmaps that the API gives of them.

A log says which blocks of 64 KiB were written since the disk's snapshot before (its parent). Files are little-endian,
with the first block in the least significant bit; the API's bitmaps have it in the most significant one.
"""

from __future__ import annotations

import re
import struct
import uuid as uuids
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from services.storage.formats.interface import FormatError

BLOCK_SIZE: Final = 64 << 10
NO_DISK: Final = uuids.UUID(int=0)

_HEADER: Final = struct.Struct("<16s16si4xQ")
_MAX_SIZE: Final = 1 << 52
_SET: Final = re.compile("1+")
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def bitmap_length(size: int) -> int:
    """Bytes of the bitmap of a disk of so many bytes."""
    return -(-size // BLOCK_SIZE // 8)


@dataclass(frozen=True, slots=True)
class Log:
    """`parent`, `child`: disks tracked before and after this one. `bitmap`: as in the file.

    `consistent`: nobody writes to the disk, or has without tracking it. `size`: bytes of the disk.
    """

    size: int
    parent: uuids.UUID = NO_DISK
    child: uuids.UUID = NO_DISK
    consistent: bool = False
    bitmap: bytes = b""

    def pack(self) -> bytes:
        header = _HEADER.pack(self.parent.bytes, self.child.bytes, self.consistent, self.size)
        return header + self.bitmap.ljust(bitmap_length(self.size), b"\0")

    def resized(self, size: int) -> Log:
        """Grown; the new blocks count as not changed. Raises `FormatError` for less."""
        if size < self.size:
            raise FormatError(f"a CBT log of {self.size} bytes cannot shrink to {size}")
        return replace(self, size=size, bitmap=self.bitmap.ljust(bitmap_length(size), b"\0"))

    def marked(self, ranges: Iterable[tuple[int, int]]) -> Log:
        """With the blocks that the ranges (offset, length) touch."""
        bitmap = bytearray(self.bitmap.ljust(bitmap_length(self.size), b"\0"))
        for offset, length in ranges:
            if offset < 0 or offset + length > self.size:
                raise FormatError(f"{length} bytes at {offset} are not of a disk of {self.size}")
            if length:
                _set(bitmap, offset // BLOCK_SIZE, -(-(offset + length) // BLOCK_SIZE))
        return replace(self, bitmap=bytes(bitmap))


def new_log(size: int, parent: uuids.UUID = NO_DISK, child: uuids.UUID = NO_DISK) -> Log:
    """Of a disk in which nothing was changed."""
    return Log(size, parent, child, True, bytes(bitmap_length(size)))


def parse_log(data: bytes) -> Log:
    """Raises `FormatError`."""
    if len(data) < _HEADER.size:
        raise FormatError(f"a CBT log of {len(data)} bytes, which is less than its header of {_HEADER.size}")
    parent, child, consistent, size = _HEADER.unpack_from(data)
    if size > _MAX_SIZE:
        raise FormatError(f"a CBT log of a disk of {size} bytes")
    if consistent not in (0, 1):
        raise FormatError(f"a CBT log that is consistent in the way {consistent}, known are 0 and 1")
    bitmap = data[_HEADER.size : _HEADER.size + bitmap_length(size)]
    if len(bitmap) < bitmap_length(size):
        raise FormatError(f"a CBT log of a disk of {size} bytes with {len(bitmap)} bytes of bitmap")
    return Log(size, uuids.UUID(bytes=parent), uuids.UUID(bytes=child), bool(consistent), bitmap)


def merge(older: Log, newer: Log) -> Log:
    """The newer log with the older's changes in it, and its parent: what is left when the older disk is deleted.

    A disk that has grown in between counts as not changed where the older did not reach. Raises `FormatError` if it
    has shrunk.
    """
    return replace(newer, parent=older.parent, bitmap=union([older, newer]))


def union(logs: Iterable[Log]) -> bytes:
    """Bitmap, as in files, of what any log says, oldest first. Raises `FormatError` if a disk has shrunk."""
    bits, size = 0, 0
    for log in logs:
        if log.size < size:
            raise FormatError(f"CBT logs of a disk that has shrunk from {size} to {log.size} bytes")
        size = log.size
        bits |= int.from_bytes(log.bitmap, "little")
    return bits.to_bytes(bitmap_length(size), "little")


def to_api(bitmap: bytes) -> bytes:
    """First block in the most significant bit of the first byte, as `VDI.list_changed_blocks` gives it (in base64)."""
    return bitmap.translate(_REVERSED)


def from_api(bitmap: bytes) -> bytes:
    return bitmap.translate(_REVERSED)


def changed_ranges(bitmap: bytes, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of the runs of changed blocks; `bitmap` as in files."""
    for begin in range(0, len(bitmap), 1 << 13):
        yield from _ranges(bitmap[begin : begin + (1 << 13)], begin * 8, size)


def _ranges(part: bytes, first: int, size: int) -> Iterator[tuple[int, int]]:
    text = f"{int.from_bytes(part.translate(_REVERSED), 'big'):0{len(part) * 8}b}"
    for match in _SET.finditer(text):
        offset = (first + match.start()) * BLOCK_SIZE
        length = min((first + match.end()) * BLOCK_SIZE, size) - offset
        if length > 0:
            yield offset, length


def _set(bitmap: bytearray, begin: int, end: int) -> None:
    """Bits from `begin` to before `end`, least significant first."""
    first, last = begin // 8, (end - 1) // 8
    if first == last:
        bitmap[first] |= (0xFF << begin % 8) & (0xFF >> 7 - (end - 1) % 8) & 0xFF
        return
    bitmap[first] |= 0xFF << begin % 8 & 0xFF
    bitmap[last] |= 0xFF >> 7 - (end - 1) % 8
    bitmap[first + 1 : last] = b"\xff" * (last - first - 1)
