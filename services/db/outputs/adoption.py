"""Makes the rows of a file those of this database, durably, before anybody is served."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from services.db.outputs.startup import Loaded
from services.db.recovery import RESERVE
from services.db.redo.interface import CheckpointHeader, RedoLog
from services.db.upgrade import run
from services.db.upgrade.rule import Surroundings
from shared.contracts.db import SnapshotRow
from shared.store import NOTHING_WRITTEN, Store

log = logging.getLogger("db.outputs")

CERTIFICATES: Final = "certs"
"""Folder beside the database with the certificates that a pool of the original trusts, for its upgrade."""

SKIP: Final = 2 * RESERVE

STAYING: Final = ("message",)
"""Classes that no file has: what the redo log knows of them stays."""


def adopted(loaded: Loaded, held: Store, folder: Path) -> Store:
    """The rows, as this program wants them. `held`: those of the redo log, which are given up.

    Files are behind what anybody can have been told, so the rows count as changed, for whoever has an event token, at a
    generation beyond that: two reserves above. Those of somebody else begin a term, and are at that generation. Those
    of a file of our own, whose redo log was lost, are where they were in the pool's history: other hosts' processes may
    have more of it. Whoever serves them skips so far.
    """
    new, origin = loaded.store, loaded.found.origin
    keep(new, held)
    if origin is None:
        new.generation, new.term = max(loaded.dump.generation, held.generation) + SKIP, held.term + 1
        changed = new.generation
    else:
        new.generation, new.term = max(loaded.dump.generation, held.generation + 1), max(held.term, origin.term)
        changed = new.generation + SKIP
    run.apply(new, loaded.dump.schema, Surroundings(certificates=folder / CERTIFICATES))
    for table in new.tables.values():
        for row in table.rows.values():
            row.created = row.modified = changed
            row.written = NOTHING_WRITTEN
        table.touched = changed
    log.warning(
        "the database of %s is used",
        loaded.found.place.path,
        extra={"rows": new.count(), "generation": new.generation, "its_generation": loaded.dump.generation},
    )
    return new


def keep(new: Store, held: Store) -> None:
    """Rows whose reference or uuid the file has as well do not stay."""
    for cls in STAYING:
        for ref, row in held.tables[cls].rows.items():
            if ref not in new.by_ref and row.fields.get("uuid") not in new.by_uuid:
                new.add([SnapshotRow(cls=cls, ref=ref, created=0, modified=0, fields=dict(row.fields))])


def make_durable(rows: Store, redo_log: RedoLog, boot: str, requests: dict[str, int]) -> None:
    """A checkpoint, before the log is begun. Raises `RedoLogError`: then the next start decides again.

    It counts from one moment on, and its generation is the newest: a process that dies before starts with the file
    again, one that dies after it with the log.
    """
    checkpoint = redo_log.checkpoint()
    checkpoint.hold(
        CheckpointHeader(
            generation=rows.generation, term=rows.term, rows=rows.count(), boot=boot, requests=dict(requests)
        )
    )
    checkpoint.write(rows.snapshot())
    checkpoint.finish()
    checkpoint.tidy()
