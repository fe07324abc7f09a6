"""A small redo log, clients that commit to it, and what its rows should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.db.disk import Disk
from services.db.recovery import restore
from services.db.redo.block.checkpoint import BlockCheckpoint
from services.db.redo.block.log import BlockRedoLog
from services.db.redo.block.reading import ELSEWHERE
from services.db.redo.interface import CheckpointHeader, Entry, LogRecord, entry
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted, RowModified
from shared.database_dump.schema import TABLES
from shared.redo_blocks.layout import Geometry
from shared.store import Store

SMALL = Geometry(half=40_000)
Rows = dict[tuple[str, str], dict[str, Any]]


def network(ref: str, **fields: Any) -> RowCreated:
    return RowCreated(cls="network", ref=ref, fields={"uuid": f"uuid of {ref}", **fields})


def write(ref: str, **fields: Any) -> RowModified:
    return RowModified(cls="network", ref=ref, fields=fields)


def drop(ref: str) -> RowDeleted:
    return RowDeleted(cls="network", ref=ref)


def rows_of(store: Store) -> Rows:
    """What persists of them."""
    return {
        (cls, ref): {
            column.field.name: row.fields[column.field.name]
            for column in TABLES[cls].columns.values()
            if column.field is not None and column.read
        }
        for cls, table in store.tables.items()
        if TABLES[cls].persistent
        for ref, row in table.rows.items()
    }


class Primary:
    """A store and the log below it, as the committer has them; the file is small unless `geometry` says otherwise."""

    def __init__(self, path: Path, disk: Disk | None = None, geometry: Geometry = SMALL, **options: Any) -> None:
        self.path = path
        self.log = BlockRedoLog(path, disk, geometry=geometry, **options)
        found = self.log.recover()
        self.found = found
        self.store = restore(found, ELSEWHERE)
        self.store.term += 1
        self.log.begin(self.store.generation, self.store.term)

    def entry(self, *changes: RowChange, **told: Any) -> Entry:
        """Applies it, as a commit on its way into the log is."""
        store = self.store
        generation = store.generation + self.log.generations(changes)
        record = LogRecord(generation=generation, term=store.term, changes=list(changes), **told)
        made = entry(record, store.generation)
        store.apply(Delta(term=store.term, generation=generation, previous=store.generation, changes=list(changes)))
        return made

    def commit(self, *changes: RowChange, **told: Any) -> Rows:
        """Returns the rows afterwards."""
        self.log.append([self.entry(*changes, **told)], True)
        return rows_of(self.store)

    def header(self, **told: Any) -> CheckpointHeader:
        store = self.store
        return CheckpointHeader(generation=store.generation, term=store.term, rows=store.count(), **told)

    def checkpoint_of(self, header: CheckpointHeader) -> BlockCheckpoint:
        made = self.log.checkpoint()
        assert isinstance(made, BlockCheckpoint)
        made.hold(header)
        return made

    def checkpoint(self, **told: Any) -> None:
        made = self.checkpoint_of(self.header(**told))
        made.begin()
        made.write(self.store.snapshot())
        made.finish()
        made.tidy()

    def again(self, disk: Disk | None = None, **options: Any) -> Primary:
        """The process is started anew."""
        self.log.close()
        return Primary(self.path, disk, self.log.device.geometry, **options)

    @property
    def rows(self) -> Rows:
        return rows_of(self.store)


def recovered_rows(path: Path, geometry: Geometry = SMALL) -> Rows:
    """What a start would find."""
    log = BlockRedoLog(path, geometry=geometry)
    try:
        return rows_of(restore(log.recover(), ELSEWHERE))
    finally:
        log.close()
