"""Generations only go up: no row was changed before it was made, and nothing after the database's own generation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.db.check.findings import Finding, Kind, Rebuild, Stamp
from shared.contracts.db import SnapshotRow
from shared.store import Store


def check(rows: Iterable[SnapshotRow], generation: int) -> Iterator[Finding]:
    """The repair counts the row as changed now, so that nobody who asks for changes misses it."""
    for row in rows:
        if 0 <= row.created <= row.modified <= generation:
            continue
        what = f"made at {row.created}, changed at {row.modified}, in a database of generation {generation}"
        created = min(max(row.created, 0), generation)
        yield Finding(Kind.WRONG_GENERATION, row.cls, row.ref, "", what, Stamp(created, generation))


def of_tables(store: Store) -> Iterator[Finding]:
    for cls, table in store.tables.items():
        newest = max((row.modified for row in table.rows.values()), default=0)
        newest = max(newest, *(deleted for _, deleted, _ in table.tombstones), 0)
        if not newest <= table.touched <= store.generation:
            what = f"the table was touched at {table.touched}, its newest change is of {newest}"
            yield Finding(Kind.WRONG_GENERATION, cls, "", "", what, Rebuild())
        before = 0
        for created, deleted, ref in table.tombstones:
            if not created <= deleted or deleted < before:
                what = f"deletions are out of order: made at {created}, deleted at {deleted} after one at {before}"
                yield Finding(Kind.WRONG_GENERATION, cls, ref, "", what, Rebuild())
            before = deleted
