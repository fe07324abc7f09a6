"""Databases as files: the state folder of a database process, and dumps. Nothing is changed by reading."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from services.db.check.findings import Finding, Kind, Severity
from services.db.check.soundness import check_rows, check_store
from services.db.disk import Disk
from services.db.recovery import boot_id, restore
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import Recovered, RedoLogError
from shared import garbage
from shared.contracts.db import SnapshotRow
from shared.database_dump.reader import DumpError, Reader
from shared.store import Store

PIECE: Final = 256 * 1024
_GZIP: Final = b"\x1f\x8b"

HIDDEN: Final = frozenset(
    {
        Kind.UNKNOWN_CLASS,
        Kind.UNKNOWN_FIELD,
        Kind.MISSING_FIELD,
        Kind.NO_REFERENCE,
        Kind.SHARED_REFERENCE,
        Kind.ONE_SIDED,
    }
)
"""What loading the rows covers up: afterwards only the rows as they are kept tell of it."""


class Unreadable(Exception):
    """There is no database, or none of it can be read; the text says why."""


@dataclass(slots=True)
class Examined:
    """`rows`: as they would be after a start; as they are kept when they cannot be loaded. `requests`: as in the log.

    `loadable`: false when a start would fail. `notes`: what else is to be told, such as a torn end. `journal`: another
    redo log says what was committed.
    """

    rows: list[SnapshotRow]
    generation: int
    term: int
    findings: list[Finding]
    loadable: bool = True
    requests: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    journal: bool = False


class _ReadOnly(Disk):
    """What a log cuts off when it is read stays where it is."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        return super().open(path, os.O_RDONLY, mode)

    def truncate(self, descriptor: int, length: int) -> None:
        """A torn end does not count, whether it is there or not."""

    def sync(self, descriptor: int) -> None:
        """Nothing was written."""


def require_log(path: Path) -> Path:
    """The folder of the redo log in a state folder. Raises `Unreadable`."""
    log = path / "redo"
    if not log.is_dir():
        raise Unreadable(f"{path} is no state folder of a database: it has no folder redo")
    return log


def folder(path: Path) -> Examined:
    """The redo log in a state folder. Raises `Unreadable`."""
    log = require_log(path)
    try:
        found = FileRedoLog(log, boot_id(), _ReadOnly()).recover()
    except (RedoLogError, OSError, msgspec.DecodeError) as error:
        raise Unreadable(f"{log} cannot be read: {error}") from error
    if not found.generation:
        raise Unreadable(f"{log} holds no database")
    return recovered(found)


def recovered(found: Recovered) -> Examined:
    """What a redo log holds."""
    kept = check_rows(found.rows, found.generation)
    examined = Examined(
        found.rows, found.generation, found.term, kept, requests=dict(found.requests), journal=found.journal
    )
    if found.journal:
        examined.notes.append("this is the local journal beside another redo log, which says what was committed")
    if found.torn:
        examined.notes.append(f"{found.torn} bytes at the end of the redo log are of a commit that never was one")
    try:
        store = restore(found, boot_id())
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        # Whatever a damaged row made of the code that took it for a sound one.
        what = f"the rows cannot be loaded: {type(error).__name__}: {error}"
        examined.findings = [*kept, Finding(Kind.UNREADABLE, "", "", "", what)]
        examined.loadable = False
        return examined
    examined.rows = list(store.snapshot())
    examined.generation, examined.term = store.generation, store.term
    examined.findings = [*(finding for finding in kept if finding.kind in HIDDEN), *check_store(store)]
    return examined


def dump(path: Path) -> Examined:
    """An XML document, or that compressed. Lists that follow from references are not read. Raises `Unreadable`."""
    reader = Reader(tolerant=True)
    with _opened(path) as file, garbage.paused():
        while data := file.read(PIECE):
            reader.feed(data)
        read = reader.close()
    findings = check_rows(read.rows, read.generation)
    if not any(finding.kind is Kind.WRONG_TYPE for finding in findings):
        store = Store()
        store.load(read.rows, read.generation, 0)
        findings = [*(finding for finding in findings if finding.kind in HIDDEN), *check_store(store)]
    for name, rows in sorted(read.unknown.items()):
        what = f"{rows} rows have what is not known here: it is left out"
        cls, _, column = name.partition(".")
        kind = Kind.UNKNOWN_FIELD if column else Kind.UNKNOWN_CLASS
        findings.append(Finding(kind, cls, "", column, what, severity=Severity.NOTE))
    return Examined(read.rows, read.generation, 0, findings)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
    except (OSError, EOFError, zlib.error, DumpError) as error:
        raise Unreadable(f"{path} is no database that can be read: {error}") from error
