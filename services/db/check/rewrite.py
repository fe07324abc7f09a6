"""Writes a repaired database durably; the damaged one is kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from services.db.check.findings import Finding, Kind, Rebuild
from services.db.check.repair import repaired
from services.db.check.source import Examined
from services.db.disk import Disk
from services.db.outputs.adoption import make_durable
from services.db.recovery import boot_id
from services.db.redo.file import FileRedoLog
from shared.contracts.db import SnapshotRow
from shared.database_dump.writer import moment, pieces
from shared.store import Store


class NotRepaired(Exception):
    """Nothing was written; the text says why."""


def mended(examined: Examined) -> tuple[Store, list[Finding]]:
    """The rows as they should be, one generation later in a term of their own, and what was put right.

    In a new term they are another history: whoever follows fetches all of them. Rows that were changed count as
    changed now. Raises `NotRepaired`: damage that loading covers up and nobody can repair is left as it is, since the
    rows written would be other ones.
    """
    if examined.journal:
        raise NotRepaired("what was committed is in another redo log, and this is only the local journal beside it")
    for finding in examined.findings:
        if finding.kind in (Kind.SHARED_REFERENCE, Kind.NO_REFERENCE, Kind.MISSING_FIELD) and finding.repair is None:
            raise NotRepaired(f"{finding.cls} {finding.ref} {finding.field}: {finding.what}; somebody has to decide")
    rows, done = repaired(examined.rows, examined.generation)
    before = {(row.cls, row.ref): row.fields for row in examined.rows}
    now = examined.generation + 1
    store = Store()
    try:
        store.load(_stamped(rows, before, now), now, examined.term + 1)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise NotRepaired(f"the rows cannot be loaded: {type(error).__name__}: {error}") from error
    covered = [finding for finding in examined.findings if finding not in done and _is_covered(finding)]
    return store, [*done, *covered]


def _is_covered(finding: Finding) -> bool:
    """Whether loading the rows has put it right."""
    return isinstance(finding.repair, Rebuild) or (
        finding.repair is not None
        and finding.kind in (Kind.UNKNOWN_CLASS, Kind.UNKNOWN_FIELD, Kind.MISSING_FIELD, Kind.ONE_SIDED)
    )


def _stamped(
    rows: Iterable[SnapshotRow], before: dict[tuple[str, str], dict[str, object]], now: int
) -> Iterable[SnapshotRow]:
    for row in rows:
        changed = before.get((row.cls, row.ref)) != row.fields
        modified = now if changed else row.modified
        written = {name: min(at, modified) for name, at in row.written.items()}
        yield SnapshotRow(
            cls=row.cls, ref=row.ref, created=row.created, modified=modified, fields=row.fields, written=written
        )


def folder(path: Path, examined: Examined, store: Store, disk: Disk | None = None) -> Path:
    """A checkpoint that the next start takes; the log as it was is kept under another name, which is returned.

    The process that has the folder must not run. A crash meanwhile leaves the old database or the new one. Raises
    `OSError`, `RedoLogError`.
    """
    disk = disk or Disk()
    aside = path / f"redo-before-repair-{store.generation:020d}"
    aside.mkdir(mode=0o700, exist_ok=True)
    for file in sorted((path / "redo").iterdir()):
        if not (aside / file.name).exists():
            os.link(file, aside / file.name)
    disk.sync_folder(aside)
    disk.sync_folder(path)
    log = FileRedoLog(path / "redo", boot_id(), disk)
    make_durable(store, log, boot_id(), examined.requests)
    log.close()
    return aside


def dump(path: Path, store: Store, disk: Disk | None = None) -> None:
    """A new document; whatever was there is replaced. Raises `OSError`."""
    disk = disk or Disk()
    new = path.with_name(f"{path.name}.new")
    disk.unlink(new)
    descriptor = disk.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        end = 0
        for piece in pieces(moment(store)):
            disk.write_all(descriptor, piece, end)
            end += len(piece)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    disk.rename(new, path)
    disk.sync_folder(path.parent)
