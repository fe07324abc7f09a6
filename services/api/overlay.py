"""Rows as they will be after some changes: what a decision about the state to come looks at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shared.contracts.db import Change, Create, Delete, MapDrop, MapPut, SetAdd, SetDrop, Update
from shared.errors import ApiError
from shared.store import Store


class Overlay:
    """The store with changes of single rows on top. Relations are not followed: only fields that are written differ."""

    def __init__(self, store: Store, changes: Iterable[Change]) -> None:
        self._store = store
        self._rows: dict[tuple[str, str], dict[str, Any] | None] = {}
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        key = (change.cls, change.ref)
        if isinstance(change, Create):
            fields = self._store.tables[change.cls].cls.fields
            self._rows[key] = {name: change.fields.get(name, field.initial()) for name, field in fields.items()}
            return
        if isinstance(change, Delete):
            self._rows[key] = None
            return
        known = self.row(*key)
        if known is None:
            return
        row = self._rows[key] = dict(known)
        match change:
            case Update():
                row.update(change.fields)
            case MapPut():
                row[change.field] = {**row[change.field], change.key: change.value}
            case MapDrop():
                row[change.field] = {k: v for k, v in row[change.field].items() if k != change.key}
            case SetAdd():
                row[change.field] = [change.value, *row[change.field]]
            case SetDrop():
                row[change.field] = [v for v in row[change.field] if v != change.value]

    def row(self, cls: str, ref: str) -> Mapping[str, Any] | None:
        if (cls, ref) in self._rows:
            return self._rows[cls, ref]
        return self._store.row(cls, ref)

    def rows(self, cls: str) -> Mapping[str, Mapping[str, Any]]:
        mine = {ref: row for (of, ref), row in self._rows.items() if of == cls}
        if not mine:
            return self._store.rows(cls)
        merged = {**self._store.rows(cls), **mine}
        return {ref: row for ref, row in merged.items() if row is not None}

    def get(self, cls: str, ref: str, field: str) -> Any:
        row = self.row(cls, ref)
        if row is None:
            raise ApiError("HANDLE_INVALID", cls, ref)
        return row[field]
