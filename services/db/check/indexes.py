"""What a store looks rows up with tells the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.db.check.findings import Finding, Kind, Rebuild
from shared.store import Store


def check(store: Store) -> Iterator[Finding]:
    refs: dict[str, str] = {}
    uuids: dict[str, tuple[str, str]] = {}
    for cls, table in store.tables.items():
        names: dict[str, set[str]] = {}
        for ref, row in table.rows.items():
            refs[ref] = cls
            if uuid := row.fields.get("uuid"):
                uuids[uuid] = (cls, ref)
            if "name_label" in row.fields:
                names.setdefault(row.fields["name_label"], set()).add(ref)
        known = {label: set(found) for label, found in table.by_name.items()}
        yield from _compared("by_name", names, known, cls)
    yield from _compared("by_ref", refs, store.by_ref)
    yield from _compared("by_uuid", uuids, store.by_uuid)


def _compared(index: str, right: dict[str, Any], actual: dict[str, Any], cls: str = "") -> Iterator[Finding]:
    for key in right.keys() | actual.keys():
        if right.get(key) != actual.get(key):
            what = f"{index} has {actual.get(key)!r} for {key!r}, and should have {right.get(key)!r}"
            yield Finding(Kind.WRONG_INDEX, cls, "", "", what, Rebuild())
