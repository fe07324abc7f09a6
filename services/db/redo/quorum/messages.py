"""What lies in the queue: a frame (`frames.py`) with a head, in JSON, and what the head announces behind it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from services.db.redo.frames import decode, encode
from services.db.redo.interface import CheckpointHeader, Entry, LogRecord, bodies
from shared.contracts.db import SnapshotRow

PIECE: Final = 1024 * 1024
"""Bytes of a message at most, besides its head."""


class Turn(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A writer from one `begin` to the next. `writer`: a name that no other process has."""

    term: int
    turn: int
    writer: str

    @property
    def office(self) -> str:
        """What a writer keeps for a whole term."""
        return f"{self.term}.{self.writer}"


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`by`: who sent it."""

    by: Turn


class Claim(Head, frozen=True, tag="claim"):
    """`by` is about to begin."""


class Begin(Head, frozen=True, tag="begin"):
    """Numbers after `number` are `by`'s; up to it they are those of `follows` and of whom that follows.

    `follows`: None where nothing before counts. `empty`: the database had no rows then. `generation`: at that time, at
    least that of the last commit.
    """

    number: int
    generation: int
    follows: Turn | None = None
    empty: bool = False


class Commits(Head, frozen=True, tag="commits"):
    """Part `part` of `parts` of a batch, which counts when all are there. Behind it a piece of the records' frames."""

    number: int
    part: int = 0
    parts: int = 1


class Rows(Head, frozen=True, tag="rows"):
    """A piece of a checkpoint that replaces numbers up to `cut`. Behind it a piece of its compressed rows."""

    checkpoint: str
    cut: int
    part: int
    last: bool = False


class Finish(Head, frozen=True, tag="finish"):
    """The checkpoint counts. It replaces numbers up to `cut`, its own is a later one."""

    number: int
    checkpoint: str
    cut: int
    header: CheckpointHeader


class Mark(msgspec.Struct, frozen=True, tag="mark"):
    """Of nobody; it is known by the message's id."""


Message = Claim | Begin | Commits | Rows | Finish | Mark

_heads: Final = msgspec.json.Decoder(Message)
_records: Final = msgspec.json.Decoder(LogRecord)
_rows: Final = msgspec.json.Decoder(list[SnapshotRow])


class Damaged(Exception):
    """A message that is none of ours, or not as it was sent."""


def encoded(head: Message, payload: bytes = b"") -> bytes:
    return encode(msgspec.json.encode(head)) + (encode(payload) if payload else b"")


def decoded(body: bytes) -> tuple[Message, bytes]:
    """Raises `Damaged`."""
    frames = list(decode(body))
    if not 1 <= len(frames) <= 2 or frames[-1][0] != len(body):
        raise Damaged(f"a message of {len(body)} bytes is damaged")
    try:
        head = _heads.decode(frames[0][1])
    except msgspec.MsgspecError as error:
        raise Damaged(f"a message is none of a redo log: {error}") from None
    return head, frames[1][1] if len(frames) == 2 else b""


def commits(by: Turn, number: int, entries: Sequence[Entry]) -> list[bytes]:
    """The messages of one batch."""
    pieces = list(_pieces(b"".join([entry.frame for entry in entries])))
    return [
        encoded(Commits(by=by, number=number, part=part, parts=len(pieces)), piece) for part, piece in enumerate(pieces)
    ]


def records(pieces: Iterable[bytes]) -> list[LogRecord]:
    """Of a batch whose parts are all there. Raises `Damaged`."""
    data = b"".join(pieces)
    found, end = [], 0
    try:
        for end, body in decode(data):  # noqa: B007 (its last value is where it ends)
            found.append(_records.decode(body))
    except msgspec.MsgspecError as error:
        raise Damaged(f"a commit cannot be read: {error}") from None
    if end != len(data):
        raise Damaged(f"a batch of commits is damaged at byte {end}")
    return found


def rows(by: Turn, checkpoint: str, cut: int, content: Iterable[SnapshotRow]) -> Iterator[bytes]:
    """The messages that hold all rows; one at least."""
    gathered, part = bytearray(), 0
    for data in _compressed(content):
        gathered += data
        while len(gathered) > PIECE:
            yield encoded(Rows(by=by, checkpoint=checkpoint, cut=cut, part=part), bytes(gathered[:PIECE]))
            del gathered[:PIECE]
            part += 1
    yield encoded(Rows(by=by, checkpoint=checkpoint, cut=cut, part=part, last=True), bytes(gathered))


def content(pieces: Iterable[bytes]) -> list[SnapshotRow]:
    """The rows of all pieces, in their order. Raises `Damaged`."""
    try:
        data = zlib.decompress(b"".join(pieces))
        found: list[SnapshotRow] = []
        end = 0
        for end, body in decode(data):  # noqa: B007 (as above)
            found += _rows.decode(body)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise Damaged(f"the rows of a checkpoint cannot be read: {error}") from None
    if end != len(data):
        raise Damaged(f"the rows of a checkpoint are damaged at byte {end}")
    return found


def _compressed(content: Iterable[SnapshotRow]) -> Iterator[bytes]:
    press = zlib.compressobj(1)
    for body in bodies(content):
        yield press.compress(encode(body))
    yield press.flush()


def _pieces(data: bytes) -> Iterator[bytes]:
    for begin in range(0, len(data), PIECE):
        yield data[begin : begin + PIECE]
