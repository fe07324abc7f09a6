"""Carries out the repairs that findings name. Nothing is guessed: what has no repair stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from services.db.check.findings import DropField, DropRow, Finding, SetField, Stamp
from services.db.check.soundness import check_rows
from shared.contracts.db import SnapshotRow

PASSES = 4
"""A repair may bring others to light, such as of a list that a dropped row was named in; more do not follow."""


def repaired(rows: Sequence[SnapshotRow], generation: int) -> tuple[list[SnapshotRow], list[Finding]]:
    """The rows as they should be, and the findings that were put right. `rows` stay as they are."""
    current, done = list(rows), []
    for _ in range(PASSES):
        found = [finding for finding in check_rows(current, generation) if finding.repair is not None]
        if not found:
            break
        current = _apply(current, found)
        done += found
    return current, done


def _apply(rows: Iterable[SnapshotRow], found: Iterable[Finding]) -> list[SnapshotRow]:
    by_row: dict[tuple[str, str], list[Finding]] = {}
    for finding in found:
        by_row.setdefault((finding.cls, finding.ref), []).append(finding)
    result: list[SnapshotRow] = []
    met: set[tuple[str, str]] = set()
    for row in rows:
        key = (row.cls, row.ref)
        again, findings = key in met, by_row.get(key, [])
        met.add(key)
        if any(isinstance(finding.repair, DropRow) and (again or not _is_copy(finding)) for finding in findings):
            continue
        result.append(_mended(row, findings))
    return result


def _is_copy(finding: Finding) -> bool:
    """Whether only the second of two equal rows is meant."""
    return finding.kind == "shared_reference"


def _mended(row: SnapshotRow, findings: Iterable[Finding]) -> SnapshotRow:
    for finding in findings:
        fields = dict(row.fields)
        match finding.repair:
            case SetField(value):
                fields[finding.field] = value
                row = msgspec.structs.replace(row, fields=fields)
            case DropField():
                fields.pop(finding.field, None)
                row = msgspec.structs.replace(row, fields=fields)
            case Stamp(created, modified):
                row = msgspec.structs.replace(row, created=created, modified=modified)
    return row
