"""Commits as records of a half, and records as commits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.db.redo.block import notes
from services.db.redo.block.notes import CheckpointNote, CommitNote
from services.db.redo.interface import Entry, LogRecord, RedoLogError
from shared.contracts.db import RowChange
from shared.redo_blocks import deltas, layout
from shared.redo_blocks.layout import Damaged, Delta


def encode(entries: Sequence[Entry], marker: bytes, batch: int) -> bytes:
    """The records of a batch. `batch`: where it will stand in the half. Raises `RedoLogError` for one that has no
    form: a text too long, or fewer generations than deltas.
    """
    parts: list[bytes] = []
    for entry in entries:
        record = entry.record
        try:
            datas = [deltas.encode(delta) for delta in deltas.of_changes(record.changes)]
        except deltas.Malformed as error:
            raise RedoLogError(f"commit {record.generation} cannot be a delta: {error}") from None
        first = record.generation - len(datas) + 1
        if first <= entry.previous:
            room = record.generation - entry.previous
            raise RedoLogError(f"commit {record.generation} has {len(datas)} deltas and {room} generations")
        numbered = [(data, first + index) for index, data in enumerate(datas)]
        note = notes.commit_note(record, batch, len(datas))
        parts.append(layout.delta(notes.encode(note, _checked(numbered)), notes.GENERATION, marker))
        parts += [layout.delta(data, generation, marker) for data, generation in numbered]
    return b"".join(parts)


def term_begins(generation: int, term: int, marker: bytes, batch: int) -> bytes:
    """The record of a new term."""
    note = CommitNote(generation=generation, term=term, batch=batch, begins=True)
    return layout.delta(notes.encode(note), notes.GENERATION, marker)


def _checked(numbered: Sequence[tuple[bytes, int]]) -> bytes:
    return b"".join(data + layout.number(generation) for data, generation in numbered)


@dataclass(frozen=True, slots=True)
class Commit:
    """`note`: None for a delta of another writer. `end`: offset in the half."""

    note: CommitNote | None
    record: LogRecord
    end: int


def checkpoint_note(found: Iterator[Delta]) -> tuple[CheckpointNote | None, Delta | None]:
    """The note behind a database, or the delta that is there instead. Raises `Damaged`."""
    first = next(found, None)
    if first is None or not notes.is_note(first):
        return None, first
    read = notes.Read(first)
    if isinstance(read.note, CommitNote):
        return None, first
    if not read.confirms():
        raise Damaged(first.at, "a note's checksum is wrong")
    return read.note, None


def decode(found: Iterator[Delta], term: int) -> Iterator[Commit]:
    """`term`: of commits without a note, as another writer's are. Raises `Damaged`, for the commit that has it."""
    for delta in found:
        if not notes.is_note(delta):
            yield _foreign(delta, term)
            continue
        read = notes.Read(delta)
        note = read.note
        if isinstance(note, CheckpointNote):
            raise Damaged(delta.at, "a checkpoint's note among commits")
        own = [item for item in (next(found, None) for _ in range(note.deltas)) if item is not None]
        if not read.confirms(_checked([(item.data, item.generation) for item in own])):
            raise Damaged(delta.at, f"the checksum of commit {note.generation} is wrong")
        record = LogRecord(
            generation=note.generation,
            term=note.term,
            changes=_changes(own),
            request=note.request,
            task=note.task,
            session=note.session,
            call=note.call,
        )
        yield Commit(note, record, own[-1].end if own else delta.end)


def _foreign(delta: Delta, term: int) -> Commit:
    if delta.generation == notes.GENERATION:
        raise Damaged(delta.at, "a delta of no generation that is no note")
    record = LogRecord(generation=delta.generation, term=term, changes=_changes([delta]))
    return Commit(None, record, delta.end)


def _changes(found: Sequence[Delta]) -> list[RowChange]:
    try:
        return deltas.to_changes([deltas.decode(item.data) for item in found])
    except deltas.Malformed as error:
        raise Damaged(found[0].at, str(error)) from None


def later_batch(data: bytes, end: int, marker: bytes) -> int | None:
    """Where a batch stands that was written after the log had grown beyond `end`; None when there is no trace of one.

    What lies behind the end and says that it was written *at* the end is a batch that a crash has left unfinished. A
    batch from further on proves that what was acknowledged between is gone.
    """
    for match in re.compile(re.escape(notes.COMMIT_START)).finditer(data, end):
        try:
            found = next(layout.deltas(data, match.start() - layout.NUMBER, marker), None)
            note = notes.Read(found).note if found is not None else None
        except Damaged:
            continue
        if isinstance(note, CommitNote) and note.batch > end:
            return note.batch
    return None
