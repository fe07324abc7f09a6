"""Relations: lists that follow from references of other rows, and sets of which both ends are kept.

The left end of a many-to-many relation is the one that is written, so the right one is what is wrong when they differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from services.db.check.findings import Finding, Kind, Rebuild, SetField
from shared.contracts.db import SnapshotRow
from shared.datamodel import model
from shared.store import LINKS, NULL, Store


def many_to_many(rows: Iterable[SnapshotRow]) -> Iterator[Finding]:
    """Links to rows that are gone are none (`database-pool-ha` 1.10)."""
    by_ref: dict[str, SnapshotRow] = {row.ref: row for row in rows}
    named: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in by_ref.values():
        for field, target in _links(row.cls):
            for other in dict.fromkeys(_texts(row.fields.get(field))):
                named.setdefault(target, {}).setdefault(other, []).append(row.ref)
    for relation in model.relations:
        if relation.kind != "many-many":
            continue
        links = named.get((relation.to_cls, relation.to_field), {})
        for row in by_ref.values():
            if row.cls == relation.to_cls and relation.to_field in row.fields:
                yield from _right_end(row, relation.to_field, links.get(row.ref, []), relation.cls)


def _right_end(row: SnapshotRow, field: str, left: Sequence[str], cls: str) -> Iterator[Finding]:
    right = _texts(row.fields[field])
    if Counter(right) == Counter(left):
        return
    extra = [ref for ref in right if ref not in left]
    lacking = [ref for ref in left if ref not in right]
    parts = [f"names {ref}, which does not name it" for ref in extra[:1]]
    parts += [f"lacks the {cls} {ref}, which names it" for ref in lacking[:1]]
    what = "; ".join(parts) or "names a row twice"
    kept = [ref for ref in dict.fromkeys(right) if ref in left]
    yield Finding(Kind.ONE_SIDED, row.cls, row.ref, field, what, SetField([*lacking, *kept]))


def _links(cls: str) -> Iterable[tuple[str, tuple[str, str]]]:
    return LINKS[cls].many_many.items() if cls in LINKS else ()


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def derived(store: Store) -> Iterator[Finding]:
    """Each list is rebuilt from the references that are stored, and compared. Its order follows from history."""
    expected: dict[tuple[str, str], dict[str, list[str]]] = {}
    for cls, table in store.tables.items():
        for field, target in LINKS[cls].one_many.items():
            lists = expected.setdefault(target, {})
            for ref, row in table.rows.items():
                to = row.fields[field]
                if isinstance(to, str) and to and to != NULL:
                    lists.setdefault(to, []).append(ref)
    for cls, table in store.tables.items():
        for field in LINKS[cls].derived:
            lists = expected.get((cls, field), {})
            for ref, row in table.rows.items():
                right = lists.get(ref, [])
                if sorted(row.fields[field]) != sorted(right):
                    what = f"holds {len(row.fields[field])} references where {len(right)} rows refer to it"
                    yield Finding(Kind.WRONG_LIST, cls, ref, field, what, Rebuild())
