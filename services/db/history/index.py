"""Which blocks of a segment may hold what is looked for, without reading them.

For each block: its head, where it lies, and four bytes for everything that its entries can be found by. A look-up for
one object among a million entries reads the few blocks that name it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from services.db.history.blocks import HEAD, Head
from shared.contracts.db_history import HistoryEntry

_PLACE: Final = struct.Struct("<QII")
"""Offset and length of the frame, number of keys."""
_FILE: Final = struct.Struct("<QI")
"""Length of the segment that a file of such records belongs to, checksum of the records."""
KEY: Final = 4


def key(kind: str, value: str) -> bytes:
    """`kind`: what the value is of; one letter."""
    return zlib.crc32(f"{kind}{value}".encode()).to_bytes(KEY, "little")


_often = lru_cache(maxsize=4096)(key)
"""Of what has few values."""


def keys(entry: HistoryEntry) -> set[bytes]:
    """By what it can be found. A class and a field also together."""
    found = {_often("m", entry.call), _often("s", entry.session), _often("o", entry.user)}
    if entry.task:
        found.add(key("t", entry.task))
    for change in entry.changes:
        cls = change.cls
        found.add(key("r", change.ref))
        found.add(key("u", change.uuid))
        found.add(_often("c", cls))
        for field in change.fields:
            found.add(_often("f", field.name))
            found.add(_often("p", f"{cls}.{field.name}"))
    return found


@dataclass(frozen=True, slots=True)
class Block:
    """`offset`, `length`: of its frame, bytes. `keys`: joined."""

    head: Head
    offset: int
    length: int
    keys: bytes

    def pack(self) -> bytes:
        place = _PLACE.pack(self.offset, self.length, len(self.keys) // KEY)
        return self.head.pack() + place + self.keys

    def names(self, wanted: Iterable[bytes]) -> bool:
        """Whether it has one of the keys."""
        return any(_holds(self.keys, one) for one in wanted)


def _holds(joined: bytes, one: bytes) -> bool:
    at = joined.find(one)
    while at >= 0 and at % KEY:
        at = joined.find(one, at + 1)
    return at >= 0


def blocks(records: bytes) -> Iterator[Block]:
    at = 0
    while at < len(records):
        head = Head(*HEAD.unpack_from(records, at))
        offset, length, count = _PLACE.unpack_from(records, at + HEAD.size)
        begin = at + HEAD.size + _PLACE.size
        at = begin + count * KEY
        yield Block(head, offset, length, records[begin:at])


def pack_file(records: bytes, segment: int) -> bytes:
    """`segment`: its length in bytes."""
    return _FILE.pack(segment, zlib.crc32(records)) + records


def read_file(data: bytes, segment: int) -> bytes | None:
    """The records; None if they are damaged or of another file."""
    if len(data) < _FILE.size:
        return None
    length, crc = _FILE.unpack_from(data)
    records = data[_FILE.size :]
    return records if length == segment and zlib.crc32(records) == crc else None
