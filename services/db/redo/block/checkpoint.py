"""A database written into the half that is not valid, which takes over when its validity byte says so."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from services.db.redo.block import notes
from services.db.redo.block.device import Device
from services.db.redo.block.notes import CheckpointNote
from services.db.redo.interface import CheckpointHeader, Entry, LogFull, RedoLogError
from shared.contracts.db import SnapshotRow
from shared.database_dump import writer
from shared.database_dump.schema import TABLES
from shared.database_dump.writer import Moment
from shared.frozen import EMPTY_LIST
from shared.redo_blocks import layout
from shared.redo_blocks.layout import Half
from shared.store import LINKS

if TYPE_CHECKING:
    from services.db.redo.block.log import BlockRedoLog

PIECE = 1024 * 1024
"""Bytes that are gathered before they are written."""


class BlockCheckpoint:
    """`meanwhile`: commits appended since `begin`, to the half that is valid still. The rows may have the first of
    them: every reader passes over those, and the ids of their requests count. `missed`: one could not be appended.

    `claimed`: the validity byte may name its half.
    """

    def __init__(self, redo_log: BlockRedoLog, marker: bytes) -> None:
        self.header = CheckpointHeader(generation=0, term=0, rows=0)
        self.marker = marker
        self.meanwhile: list[Entry] = []
        self.missed = False
        self.claimed = False
        self._log = redo_log
        self.half = redo_log.half.other
        self.before = redo_log.half

    def begin(self) -> None:
        self._log.checkpoint_begins(self)

    def hold(self, header: CheckpointHeader) -> None:
        self.header = header

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        """Everything but the length first, then that. Raises `RedoLogError`."""
        try:
            write_database(self._log, self, writer.pieces(_moment(rows, self.header.generation)))
        except OSError as error:
            raise self._log.failed("a checkpoint cannot be written", error) from error

    def finish(self) -> None:
        self._log.checkpoint_counts(self)

    def abandon(self) -> None:
        self._log.checkpoint_withdrawn(self)

    def tidy(self) -> None:
        """The other half is what it is; the next checkpoint goes there."""


class Postponed:
    """Of a process that does not write to the device. Where other rows take the place of all, the log hears of it."""

    def __init__(self, replaced: Callable[[], None]) -> None:
        self._replaced = replaced
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    def hold(self, header: CheckpointHeader) -> None:
        """Nothing to note."""

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        """Nothing to keep."""

    def finish(self) -> None:
        if not self._begun:
            self._replaced()

    def abandon(self) -> None:
        """Nothing to remove."""

    def tidy(self) -> None:
        """Nothing to replace."""


def write_database(redo_log: BlockRedoLog, checkpoint: BlockCheckpoint, document: Iterable[bytes]) -> None:
    """Into the checkpoint's half. It is durable when this returns, and nobody reads it yet.

    Raises `LogFull` when it is too large, with how large; `OSError`.
    """
    device, marker, header = redo_log.device, checkpoint.marker, checkpoint.header
    disk, descriptor = device.disk, device.descriptor
    start, end = device.geometry.start(checkpoint.half), device.geometry.end(checkpoint.half)
    disk.write_all(descriptor, marker + layout.END, start)
    at, crc = start + layout.XML, 0
    gathered = bytearray()

    def flush() -> None:
        nonlocal at, crc
        crc = zlib.crc32(gathered, crc)
        if at + len(gathered) <= end:
            disk.write_all(descriptor, bytes(gathered), at)
        at += len(gathered)
        gathered.clear()

    for piece in document:
        gathered += piece
        if len(gathered) >= PIECE:
            flush()
    flush()
    length = at - start - layout.XML
    note = CheckpointNote(term=header.term, crc=crc, requests=header.requests)
    tail = layout.number(header.generation) + marker + layout.delta(notes.encode(note), notes.GENERATION, marker)
    if at + len(tail) + len(layout.END) > end:
        raise too_large("the database is", length, device.geometry.half)
    disk.write_all(descriptor, tail + layout.END, at)
    disk.write_all(descriptor, layout.number(length), start + layout.MARKER)
    disk.sync(descriptor)


def too_large(what: str, length: int, half: int) -> LogFull:
    return LogFull(
        f"{what} {length} bytes long, and half a redo log of the original's layout holds {half} with all that "
        "goes with it: choose another redo log"
    )


def _moment(rows: Iterable[SnapshotRow], generation: int) -> Moment:
    """Lists that follow from references are left empty: every reader makes them anew."""
    tables: dict[str, list[Any]] = {name: [] for name in TABLES}
    derived = {name: dict.fromkeys(LINKS[name].derived, EMPTY_LIST) for name in TABLES}
    for row in rows:
        if (table := TABLES.get(row.cls)) is not None and table.persistent:
            tables[row.cls].append((row.ref, row.created, row.modified, {**row.fields, **derived[row.cls]}))
    return Moment(generation, tables)


def empty_database() -> Iterable[bytes]:
    """What every commit follows where nothing was ever committed."""
    return writer.pieces(_moment([], 0))


def ends_of(device: Device, half: Half, marker: bytes) -> int:
    """Offset in the half behind the database and its note, which have just been written. Raises `RedoLogError`."""
    start = device.geometry.start(half)
    head = device.read(start, layout.XML)
    length = layout.database_length(head)
    if length is None or head[: layout.MARKER] != marker:
        raise RedoLogError("the checkpoint is not where it was written")
    at = layout.AROUND_XML + length
    size = layout.parsed(device.read(start + at, layout.NUMBER))
    if not size:
        raise RedoLogError("the checkpoint's note is not where it was written")
    return at + layout.AROUND_DELTA + size
