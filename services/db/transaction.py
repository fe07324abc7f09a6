"""What a transaction does to the rows: checked and worked out completely before anything is changed."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from shared.contracts.db import (
    Change,
    Create,
    Delete,
    Equals,
    KeyAbsent,
    MapDrop,
    MapPut,
    Precondition,
    RowAbsent,
    RowChange,
    RowCreated,
    RowDeleted,
    RowModified,
    RowPresent,
    SetAdd,
    SetDrop,
    Touch,
    Transact,
    Unchanged,
    Update,
)
from shared.datamodel import values
from shared.datamodel.schema import MISSING, Class, Field
from shared.datamodel.text import storable
from shared.errors import ApiError, DatabaseConflict, internal_error
from shared.store import LINKS, NULL, Row, Store


def check(store: Store, preconditions: Sequence[Precondition]) -> None:
    """Raises `DatabaseConflict` for the first precondition that does not hold."""
    for index, fact in enumerate(preconditions):
        row = _table(store, fact.cls).rows.get(fact.ref)
        match fact:
            case RowAbsent():
                holds = row is None
            case RowPresent():
                holds = row is not None
            case Unchanged():
                holds = row is not None and _changed(row, fact.field) <= fact.generation
            case Equals():
                holds = row is not None and row.fields.get(fact.field) == fact.value
            case KeyAbsent():
                holds = row is not None and fact.key not in row.fields.get(fact.field, {})
        if not holds:
            raise DatabaseConflict(index, fact.cls, fact.ref, getattr(fact, "field", ""))


def _changed(row: Row, field: str) -> int:
    if not field:
        return row.modified
    if field not in row.fields:
        raise internal_error(f"there is no field {field!r} in that row")
    return row.field_modified(field)


def _table(store: Store, cls: str) -> Any:
    table = store.tables.get(cls)
    if table is None:
        raise internal_error(f"no class {cls!r} in the database")
    return table


def _plain(field: Field, value: Any) -> Any:
    """As it is kept. Raises INTERNAL_ERROR for a value of another type, or a number that JSON cannot say."""
    plain = values.check(field.type, value)
    for number in plain.values() if isinstance(plain, dict) else (plain,):
        if isinstance(number, float) and not math.isfinite(number):
            raise internal_error(f"{number} cannot be kept")
    return storable(plain)


class _Draft:
    """Rows as the transaction sees them: the store, with its own changes on top."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.created: dict[tuple[str, str], dict[str, Any]] = {}
        self.modified: dict[tuple[str, str], dict[str, Any]] = {}
        self.deleted: dict[tuple[str, str], None] = {}
        self.touched: set[tuple[str, str]] = set()
        self.order: dict[tuple[str, str], None] = {}
        self._refs: set[str] = set()
        """Of rows made here, also of those that are gone again."""
        self._uuids: dict[str, tuple[str, str]] = {}
        """The row that took a uuid last; it may have given it up since."""

    def field(self, cls: str, ref: str, name: str) -> Any:
        key = (cls, ref)
        if key in self.deleted:
            raise ApiError("HANDLE_INVALID", cls, ref)
        if key in self.created:
            return self.created[key][name]
        if name in self.modified.get(key, {}):
            return self.modified[key][name]
        row = self._store.tables[cls].rows.get(ref)
        if row is None:
            raise ApiError("HANDLE_INVALID", cls, ref)
        return row.fields[name]

    def exists(self, cls: str, ref: str) -> bool:
        key = (cls, ref)
        if key in self.created:
            return True
        return key not in self.deleted and ref in self._store.tables[cls].rows

    def create(self, declared: Class, ref: str, fields: Mapping[str, Any]) -> None:
        cls = declared.name
        if ref in ("", NULL) or ref in self._store.by_ref or ref in self._refs:
            raise DatabaseConflict(-1, cls, ref)
        row: dict[str, Any] = {}
        for name, field in declared.fields.items():
            if name in LINKS[cls].derived:
                continue
            if name in fields:
                row[name] = _plain(field, fields[name])
            elif field.default is MISSING and name != "uuid":
                row[name] = field.type.empty()
            else:
                row[name] = field.initial()
        for name in fields:
            if name not in declared.fields:
                raise internal_error(f"{cls} has no field {name!r}")
        if "uuid" in declared.fields:
            row["uuid"] = row["uuid"] or str(uuid.uuid4())
            self._claim(cls, ref, row["uuid"])
        self._refs.add(ref)
        self.created[cls, ref] = row
        self.order[cls, ref] = None

    def write(self, declared: Class, ref: str, name: str, value: Any) -> None:
        cls = declared.name
        field = declared.fields.get(name)
        if field is None or name in LINKS[cls].derived or name in LINKS[cls].right_ends:
            raise internal_error(f"{cls} has no field {name!r} that can be written")
        value = _plain(field, value)
        old = self.field(cls, ref, name)
        if name == "uuid" and old != value:
            self._claim(cls, ref, value)
        key = (cls, ref)
        if key in self.created:
            self.created[key][name] = value
        elif old != value:
            self.modified.setdefault(key, {})[name] = value
            self.order[key] = None

    def _claim(self, cls: str, ref: str, uuid: str) -> None:
        """The row is to have that uuid, which is unique over all classes."""
        if not uuid:
            raise internal_error(f"{cls} {ref} without a uuid")
        owner = self._uuids.get(uuid) or self._store.by_uuid.get(uuid)
        if owner is not None and self.exists(*owner) and self.field(*owner, "uuid") == uuid:
            raise ApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", cls, "uuid", uuid)
        self._uuids[uuid] = (cls, ref)

    def delete(self, cls: str, ref: str) -> None:
        key = (cls, ref)
        if not self.exists(cls, ref):
            return
        self.modified.pop(key, None)
        if self.created.pop(key, None) is not None:
            self.order.pop(key, None)
            return
        self.deleted[key] = None
        self.order[key] = None

    def touch(self, cls: str, ref: str) -> None:
        if not self.exists(cls, ref):
            raise ApiError("HANDLE_INVALID", cls, ref)
        if (cls, ref) not in self.created:
            self.touched.add((cls, ref))
            self.order[cls, ref] = None

    def changes(self) -> list[RowChange]:
        """What is different in the end: a value that was written and written back is no change."""
        result: list[RowChange] = []
        for cls, ref in self.order:
            if (cls, ref) in self.deleted:
                result.append(RowDeleted(cls=cls, ref=ref))
            elif (cls, ref) in self.created:
                result.append(RowCreated(cls=cls, ref=ref, fields=self.created[cls, ref]))
            else:
                old = self._store.tables[cls].rows[ref].fields
                fields = {name: new for name, new in self.modified.get((cls, ref), {}).items() if new != old[name]}
                if fields or (cls, ref) in self.touched:
                    result.append(RowModified(cls=cls, ref=ref, fields=fields))
        return result


def resolve(store: Store, request: Transact) -> list[RowChange]:
    """The row changes that the request comes to; empty when it changes nothing.

    Raises DB_CONFLICT (precondition, existing ref), HANDLE_INVALID, MAP_DUPLICATE_KEY,
    DB_UNIQUENESS_CONSTRAINT_VIOLATION, INTERNAL_ERROR (wrong type, unknown field): then nothing has changed.
    """
    check(store, request.preconditions)
    draft = _Draft(store)
    for change in request.changes:
        _draft_change(draft, _table(store, change.cls).cls, change)
    return draft.changes()


def _draft_change(draft: _Draft, declared: Class, change: Change) -> None:
    cls, ref = change.cls, change.ref
    match change:
        case Create():
            draft.create(declared, ref, change.fields)
        case Update():
            for name, value in change.fields.items():
                draft.write(declared, ref, name, value)
        case Delete():
            draft.delete(cls, ref)
        case Touch():
            draft.touch(cls, ref)
        case MapPut():
            mapping, key = draft.field(cls, ref, change.field), storable(change.key)
            if not key:
                raise internal_error(f"a key of {cls}.{change.field} is empty")
            if change.new and key in mapping:
                column = declared.fields[change.field].column
                raise ApiError("MAP_DUPLICATE_KEY", cls, column, ref, key)
            draft.write(declared, ref, change.field, {**mapping, key: change.value})
        case MapDrop():
            mapping = draft.field(cls, ref, change.field)
            if change.key in mapping:
                left = {key: value for key, value in mapping.items() if key != change.key}
                draft.write(declared, ref, change.field, left)
        case SetAdd():
            members, value = draft.field(cls, ref, change.field), storable(change.value)
            if value not in members:
                draft.write(declared, ref, change.field, [value, *members])
        case SetDrop():
            members = draft.field(cls, ref, change.field)
            if change.value in members:
                draft.write(declared, ref, change.field, [m for m in members if m != change.value])


def persistent_part(store: Store, changes: Sequence[RowChange]) -> bool:
    """Whether any of it belongs to a persistent field of a persistent class: then it must reach stable storage."""
    for change in changes:
        declared = store.tables[change.cls].cls
        if not declared.persist:
            continue
        if not isinstance(change, RowModified):
            return True
        if any(declared.fields[name].persist for name in change.fields):
            return True
    return False


def inverse(store: Store, changes: Sequence[RowChange]) -> list[RowChange]:
    """What takes the changes back, computed before they are applied: for a commit that could not be made durable."""
    undo: list[RowChange] = []
    for change in changes:
        cls, ref = change.cls, change.ref
        if isinstance(change, RowCreated):
            undo.append(RowDeleted(cls=cls, ref=ref))
            continue
        old = store.tables[cls].rows[ref].fields
        if isinstance(change, RowDeleted):
            stored = {name: value for name, value in old.items() if name not in LINKS[cls].derived}
            undo.append(RowCreated(cls=cls, ref=ref, fields=stored))
        else:
            undo.append(RowModified(cls=cls, ref=ref, fields={name: old[name] for name in change.fields}))
    return undo[::-1]
