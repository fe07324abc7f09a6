"""What the original's layout has no place for, in records that its readers pass over.

A note is a `WriteFiel` of generation 0 for a column that no version has. Every reader skips a delta whose generation it
has seen, and the database before it has 0 at least; even one that looked would ignore a column it does not know. So
terms, ids of requests and checksums travel with the commit they belong to, and count when it counts.

The value is 8 hexadecimal digits, the CRC-32 of all that follows and of what the note speaks for, then JSON.
"""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from services.db.redo.interface import LogRecord
from shared.redo_blocks import deltas
from shared.redo_blocks.layout import Damaged, Delta

TABLE: Final = "pool"
REF: Final = "OpaqueRef:NULL"
CHECKPOINT: Final = "redo_log_checkpoint"
COMMIT: Final = "redo_log_commit"
GENERATION: Final = 0

_CRC: Final = 8
_LENGTH: Final = 8
"""Digits."""


class CheckpointNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Follows the database. `crc`: of its document. `requests`: ids of finished requests with their generations."""

    term: int
    crc: int
    requests: dict[str, int] = {}
    version: int = 1


class CommitNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Precedes a commit's deltas. `deltas`: how many. `batch`: offset in the half of what was written with it.

    `begins`: no commit, but where a term begins.
    """

    generation: int
    term: int
    batch: int
    deltas: int = 0
    request: str = ""
    task: str = ""
    session: str = ""
    call: str = ""
    begins: bool = False


Note = CheckpointNote | CommitNote


def commit_note(record: LogRecord, batch: int, count: int) -> CommitNote:
    return CommitNote(
        generation=record.generation,
        term=record.term,
        batch=batch,
        deltas=count,
        request=record.request,
        task=record.task,
        session=record.session,
        call=record.call,
    )


def encode(note: Note, spoken_for: bytes = b"") -> bytes:
    """Data of a delta. `spoken_for`: what the checksum is of, besides the note."""
    column = CHECKPOINT if isinstance(note, CheckpointNote) else COMMIT
    body = msgspec.json.encode(note)
    crc = zlib.crc32(spoken_for, zlib.crc32(body))
    return deltas.encode(deltas.WriteField(TABLE, REF, column, f"{crc:08x}{body.decode()}"))


_STARTS: Final = {
    kind: deltas.encode(deltas.WriteField(TABLE, REF, kind, ""))[: -len("00000000")] for kind in (CHECKPOINT, COMMIT)
}
COMMIT_START: Final = _STARTS[COMMIT]
"""The first bytes of every commit's note."""


_CHECKPOINTS: Final = msgspec.json.Decoder(CheckpointNote)
_COMMITS: Final = msgspec.json.Decoder(CommitNote)


class Read:
    """A note as it stands there. Raises `Damaged`."""

    __slots__ = ("_crc", "_expected", "note")

    def __init__(self, found: Delta) -> None:
        commit = found.data.startswith(COMMIT_START)
        begin = len(_STARTS[COMMIT if commit else CHECKPOINT]) + _LENGTH
        body = found.data[begin + _CRC :]
        try:
            self._expected = int(found.data[begin : begin + _CRC], 16)
            self.note: Note = _COMMITS.decode(body) if commit else _CHECKPOINTS.decode(body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise Damaged(found.at, f"a note that cannot be read: {error}") from None
        self._crc = zlib.crc32(body)

    def confirms(self, spoken_for: bytes = b"") -> bool:
        """Whether the checksum is right."""
        return zlib.crc32(spoken_for, self._crc) == self._expected


def is_note(found: Delta) -> bool:
    return found.generation == GENERATION and found.data.startswith(tuple(_STARTS.values()))
