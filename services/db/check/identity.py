"""References and uuids: each is of one row of the whole database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.db.check.fields import CLASSES
from services.db.check.findings import DropRow, Finding, Kind
from shared.contracts.db import SnapshotRow
from shared.store import NULL


def check(rows: Iterable[SnapshotRow]) -> Iterator[Finding]:
    by_ref: dict[str, SnapshotRow] = {}
    by_uuid: dict[str, SnapshotRow] = {}
    for row in rows:
        if not row.ref or row.ref == NULL:
            yield Finding(Kind.NO_REFERENCE, row.cls, row.ref, "", "a row without a reference of its own")
            continue
        other = by_ref.setdefault(row.ref, row)
        if other is not row:
            yield _shared_reference(row, other)
            continue
        if row.cls in CLASSES and "uuid" in CLASSES[row.cls].fields:
            yield from _check_uuid(row, by_uuid)


def _shared_reference(row: SnapshotRow, other: SnapshotRow) -> Finding:
    """Two copies of one row are one row; of two different ones nobody knows which is meant."""
    if row.cls == other.cls and row.fields == other.fields:
        return Finding(Kind.SHARED_REFERENCE, row.cls, row.ref, "", "the row is there twice", DropRow())
    what = f"the reference is that of another {other.cls} too"
    return Finding(Kind.SHARED_REFERENCE, row.cls, row.ref, "", what)


def _check_uuid(row: SnapshotRow, by_uuid: dict[str, SnapshotRow]) -> Iterator[Finding]:
    uuid = row.fields.get("uuid")
    if not isinstance(uuid, str):
        return  # said of the field
    if not uuid:
        yield Finding(Kind.NO_UUID, row.cls, row.ref, "uuid", "the row has no uuid")
        return
    other = by_uuid.setdefault(uuid, row)
    if other is not row:
        what = f"the uuid {uuid} is that of {other.cls} {other.ref} too"
        yield Finding(Kind.SHARED_UUID, row.cls, row.ref, "uuid", what)
