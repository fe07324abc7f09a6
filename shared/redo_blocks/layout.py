"""Where what is on the device, and how records are made of bytes (`database-pool-ha` 2.1). No I/O.

    0 magic (16) | 16 NUL | 17 validity: 0 none, 1 first, 2 second half | 18 first half | second half

    half:   marker (36) | length (16) | XML | generation (16) | marker (36) | deltas
    delta:  length (16) | data | generation (16) | marker (36)

Numbers are decimal digits with leading zeros. A length that is no positive number ends the log. The marker is the same
throughout a half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MAGIC: Final = b"redo-log--------"
VALIDITY: Final = 17
"""Offset of the validity byte."""
HALVES: Final = 18
"""Offset of the first half."""
HALF: Final = 60 * 1024 * 1024
"""Bytes of a half."""

NUMBER: Final = 16
MARKER: Final = 36
END: Final = bytes(NUMBER)
"""Behind the last record: no length."""
LARGEST: Final = 10**NUMBER - 1

XML: Final = MARKER + NUMBER
"""Offset of the XML in a half."""
AROUND_XML: Final = XML + NUMBER + MARKER
AROUND_DELTA: Final = NUMBER + NUMBER + MARKER
"""Bytes of a record besides its content."""


class Half(IntEnum):
    """As the validity byte names it."""

    NONE = 0
    FIRST = 1
    SECOND = 2

    @property
    def other(self) -> Half:
        """Where the next database goes."""
        return Half.SECOND if self is Half.FIRST else Half.FIRST

    @property
    def byte(self) -> bytes:
        return b"%d" % self


@dataclass(frozen=True, slots=True)
class Geometry:
    """`half`: bytes of each. Another than the original's is for tests."""

    half: int = HALF

    def start(self, half: Half) -> int:
        """Of the first or second half."""
        return HALVES + (half - 1) * self.half

    def end(self, half: Half) -> int:
        return self.start(half) + self.half

    @property
    def size(self) -> int:
        return HALVES + 2 * self.half


UPSTREAM: Final = Geometry()


class Damaged(Exception):
    """A record that is none. `at`: its offset in the half."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(f"byte {at}: {why}")
        self.at = at
        self.why = why


def header(valid: Half) -> bytes:
    return MAGIC + b"\0" + valid.byte


def valid_half(head: bytes) -> Half | None:
    """From the first 18 bytes: which half is valid; None when the byte says neither of them, nor that there is none."""
    byte = head[VALIDITY : VALIDITY + 1]
    return next((half for half in Half if half.byte == byte), None)


def number(value: int) -> bytes:
    if not 0 <= value <= LARGEST:
        raise ValueError(f"{value} has no {NUMBER} digits")
    return b"%016d" % value


def parsed(digits: bytes) -> int | None:
    return int(digits) if len(digits) == NUMBER and digits.isdigit() else None


def delta(data: bytes, generation: int, marker: bytes) -> bytes:
    """One record, as it follows another."""
    return b"".join((number(len(data)), data, number(generation), marker))


@dataclass(frozen=True, slots=True)
class Database:
    """`xml`: offset and end of the document in the half. `end`: where deltas begin."""

    xml: tuple[int, int]
    generation: int
    marker: bytes
    end: int


def database_length(head: bytes) -> int | None:
    """From the first bytes of a half, the length of its document; None when there is no database."""
    return parsed(head[MARKER:XML]) or None


def database(data: bytes) -> Database:
    """What a half begins with. Raises `Damaged`."""
    length = database_length(data)
    if length is None:
        raise Damaged(MARKER, "no database: it has no length")
    end = XML + length
    if end + NUMBER + MARKER > len(data):
        raise Damaged(MARKER, f"a database of {length} bytes in a half of {len(data)}")
    generation = parsed(data[end : end + NUMBER])
    if generation is None:
        raise Damaged(end, "the database's generation is no number")
    before, after = data[:MARKER], data[end + NUMBER : end + NUMBER + MARKER]
    if before != after:
        raise Damaged(end + NUMBER, f"the marker behind the database is {after!r}, before it {before!r}")
    return Database((XML, end), generation, before, end + NUMBER + MARKER)


@dataclass(frozen=True, slots=True)
class Delta:
    """`at`, `end`: offsets of the record in the half."""

    at: int
    data: bytes
    generation: int
    end: int


def deltas(data: bytes, at: int, marker: bytes) -> Iterator[Delta]:
    """Those of a half, from an offset, up to where no length follows. Raises `Damaged`."""
    while at + NUMBER <= len(data):
        length = parsed(data[at : at + NUMBER])
        if not length:
            return
        begin = at + NUMBER
        end = begin + length
        if end + NUMBER + MARKER > len(data):
            raise Damaged(at, f"a delta of {length} bytes, {len(data) - begin} before the half's end")
        generation = parsed(data[end : end + NUMBER])
        if generation is None:
            raise Damaged(end, "a delta's generation is no number")
        found = data[end + NUMBER : end + NUMBER + MARKER]
        if found != marker:
            raise Damaged(end + NUMBER, f"a delta's marker is {found!r}, the database's {marker!r}")
        yield Delta(at, data[begin:end], generation, end + NUMBER + MARKER)
        at = end + NUMBER + MARKER
