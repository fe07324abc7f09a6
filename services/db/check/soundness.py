"""All checks together. Nothing is changed; seconds for a hundred thousand rows."""

from __future__ import annotations

from collections.abc import Sequence

from services.db.check import fields, generations, identity, indexes, pool, references, relations
from services.db.check.findings import Finding
from shared.contracts.db import SnapshotRow
from shared.store import Store


def check_rows(rows: Sequence[SnapshotRow], generation: int) -> list[Finding]:
    """Of rows as they are kept, whether they could be loaded or not. `generation`: the database's own."""
    classes = {row.ref: row.cls for row in rows}
    return [
        *fields.check(rows),
        *identity.check(rows),
        *references.check(rows, classes),
        *relations.many_to_many(rows),
        *generations.check(rows, generation),
        *pool.check(rows),
    ]


def check_store(store: Store) -> list[Finding]:
    """Of rows in memory: what follows from them, too."""
    return [
        *check_rows(list(store.snapshot()), store.generation),
        *relations.derived(store),
        *generations.of_tables(store),
        *indexes.check(store),
    ]
