"""Entries as they lie in a file: some hundred in each block, compressed, in a frame with a checksum.

A block is `number of its first entry (u64) | entries (u32) | lowest, highest generation (u64) | earliest, latest time
(f64)`, little endian, then JSON lines compressed by zlib. Entries are numbered from 0 on, for ever.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from services.db.redo import frames
from shared.contracts.db_history import HistoryEntry

HEAD: Final = struct.Struct("<QIQQdd")
_DECODER: Final = msgspec.json.Decoder(HistoryEntry)
_ENCODER: Final = msgspec.json.Encoder()


class Damaged(Exception):
    """A block is not what was written."""


@dataclass(frozen=True, slots=True)
class Head:
    """`first`: number of the first entry. `low`, `high`: generations. `since`, `until`: Unix times."""

    first: int
    count: int
    low: int
    high: int
    since: float
    until: float

    def pack(self) -> bytes:
        return HEAD.pack(self.first, self.count, self.low, self.high, self.since, self.until)

    def joined(self, other: Head) -> Head:
        """Of both blocks as one; `other` follows this one."""
        return Head(
            self.first,
            self.count + other.count,
            min(self.low, other.low),
            max(self.high, other.high),
            min(self.since, other.since),
            max(self.until, other.until),
        )


def head_of(entries: list[HistoryEntry], first: int) -> Head:
    generations = [entry.generation for entry in entries]
    times = [entry.time for entry in entries]
    return Head(first, len(entries), min(generations), max(generations), min(times), max(times))


def lines_of(entries: Iterable[HistoryEntry]) -> bytes:
    return b"\n".join([_ENCODER.encode(entry) for entry in entries])


def frame(head: Head, lines: bytes, level: int) -> bytes:
    """`level`: of compression, 1 to 9."""
    return frames.encode(head.pack() + zlib.compress(lines, level))


def read_head(body: bytes) -> Head:
    """Raises `Damaged`."""
    if len(body) < HEAD.size:
        raise Damaged("a block is shorter than its head")
    return Head(*HEAD.unpack_from(body))


def read_lines(body: bytes) -> list[bytes]:
    """One for each entry, in order. Raises `Damaged`."""
    try:
        lines = zlib.decompress(memoryview(body)[HEAD.size :]).split(b"\n")
    except zlib.error as error:
        raise Damaged(str(error)) from None
    if len(lines) != read_head(body).count:
        raise Damaged(f"a block has {len(lines)} entries where {read_head(body).count} were written")
    return lines


def read_entry(line: bytes) -> HistoryEntry:
    """Raises `Damaged`."""
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Damaged(str(error)) from None


def read_frame(data: bytes) -> bytes:
    """The body of exactly one frame. Raises `Damaged`."""
    found = next(frames.decode(data), None)
    if found is None or found[0] != len(data):
        raise Damaged("a block's checksum is wrong")
    return found[1]
