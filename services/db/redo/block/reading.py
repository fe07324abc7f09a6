"""A half as it is after whatever happened: what counts, where it ends, and whether more was there once. No I/O."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from services.db.redo.block import commits
from services.db.redo.block.commits import Commit
from services.db.redo.interface import Recovered
from shared import garbage
from shared.database_dump.reader import PIECE, Dump, DumpError, Reader
from shared.redo_blocks import layout
from shared.redo_blocks.layout import Damaged

ELSEWHERE: Final = "elsewhere"
"""Instead of a boot: what is volatile is never here, so a start from here is as one after the machine's restart."""


@dataclass(slots=True)
class Reading:
    """`base`: offset in the half where commits begin, `end`: behind the last that counts.

    `damage`: what ended the reading, if not the end. `lost`: offset of a batch that proves that commits which were
    acknowledged are gone between `end` and it.
    """

    dump: Dump
    database: layout.Database
    marker: bytes
    base: int
    end: int
    term: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    damage: Damaged | None = None
    lost: int | None = None


def read(data: bytes) -> Reading:
    """`data`: a whole half. Raises `Damaged` when its database cannot be read."""
    database = layout.database(data)
    records = layout.deltas(data, database.end, database.marker)
    reading = Reading(Dump(), database, database.marker, database.end, database.end)
    try:
        note, foreign = commits.checkpoint_note(records)
    except Damaged as damage:
        note, foreign, reading.damage = None, None, damage
    begin, end = database.xml
    document = memoryview(data)[begin:end]
    if note is not None and zlib.crc32(document) != note.crc:
        raise Damaged(begin, "the database's checksum is wrong")
    reading.dump = _dump(document, begin)
    if note is not None:
        reading.term, reading.requests = note.term, dict(note.requests)
        reading.base = reading.end = _end_of_note(data, database)
    if reading.damage is None:
        found = records if foreign is None else itertools.chain([foreign], records)
        with garbage.paused():
            _read_commits(reading, commits.decode(found, reading.term))
    reading.lost = commits.later_batch(data, reading.end, reading.marker)
    return reading


def _dump(document: memoryview, begin: int) -> Dump:
    reader = Reader()
    try:
        with garbage.paused():
            for at in range(0, len(document), PIECE):
                reader.feed(bytes(document[at : at + PIECE]))
        return reader.close()
    except DumpError as error:
        raise Damaged(begin, f"the database cannot be read: {error}") from None


def _end_of_note(data: bytes, database: layout.Database) -> int:
    return next(layout.deltas(data, database.end, database.marker)).end


def _read_commits(reading: Reading, found: Iterator[Commit]) -> None:
    """As the original: a delta whose generation has been seen is passed over, and the first that is none ends it."""
    seen = reading.database.generation
    try:
        for commit in found:
            reading.end = commit.end
            if commit.note is None and commit.record.generation <= seen:
                continue
            seen = max(seen, commit.record.generation)
            reading.commits.append(commit)
    except Damaged as damage:
        reading.damage = damage


def recovered(reading: Reading) -> Recovered:
    """As every redo log says it."""
    found = Recovered(
        generation=reading.database.generation,
        term=reading.term,
        boot=ELSEWHERE,
        rows=reading.dump.rows,
        requests=dict(reading.requests),
    )
    for commit in reading.commits:
        record, note = commit.record, commit.note
        if record.request:
            found.requests[record.request] = record.generation
        if record.generation < found.generation or (record.generation == found.generation and record.changes):
            continue  # the database has it
        found.generation, found.term = record.generation, max(found.term, record.term)
        if note is None or not note.begins:
            found.records.append(record)
    return found
