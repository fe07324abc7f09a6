"""A deliberately simple database: a dictionary, and relations worked out from scratch whenever somebody asks."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
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
    RowPresent,
    SetAdd,
    SetDrop,
    Touch,
    Transact,
    Unchanged,
    Update,
)
from shared.datamodel import model
from shared.errors import ApiError

Key = tuple[str, str]
"""Class and reference."""

ONE_MANY = [relation for relation in model.relations if relation.kind == "one-many"]
MANY_MANY = [relation for relation in model.relations if relation.kind == "many-many" and relation.cls != "role"]
LISTS = {(relation.to_cls, relation.to_field) for relation in [*ONE_MANY, *MANY_MANY]}


@dataclass
class ModelRow:
    """`fields`: those that are written; never a list that follows from others."""

    fields: dict[str, Any]
    created: int
    modified: int


@dataclass
class Model:
    rows: dict[Key, ModelRow] = field(default_factory=dict)
    generation: int = 0
    deleted: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    """Of each class: created, deleted, ref; oldest first."""
    touched: list[tuple[int, set[Key]]] = field(default_factory=list)

    def lists(self) -> dict[tuple[str, str, str], set[str]]:
        """What each list that follows from others holds: class, reference, field."""
        found: dict[tuple[str, str, str], set[str]] = {}
        for relation in [*ONE_MANY, *MANY_MANY]:
            for (cls, ref), row in self.rows.items():
                if cls == relation.cls:
                    value = row.fields[relation.field]
                    for to in [value] if isinstance(value, str) else value:
                        if (relation.to_cls, to) in self.rows:
                            found.setdefault((relation.to_cls, to, relation.to_field), set()).add(ref)
        return found

    def transact(self, request: Transact, uuids: dict[Key, str]) -> dict[Key, str]:
        """What happened to which row: add | mod | del. `uuids`: those that were made for rows that came without one.

        Raises `ApiError`: then nothing has changed.
        """
        for fact in request.preconditions:
            if not self._holds(fact):
                raise ApiError("DB_CONFLICT")
        draft = {key: copy.deepcopy(row.fields) for key, row in self.rows.items()}
        touches: set[Key] = set()
        for change in request.changes:
            self._change(draft, change, touches, uuids)
        return self._become(draft, touches)

    def _holds(self, fact: Precondition) -> bool:
        row = self.rows.get((fact.cls, fact.ref))
        match fact:
            case RowAbsent():
                return row is None
            case RowPresent():
                return row is not None
            case Unchanged():
                return row is not None and row.modified <= fact.generation
            case Equals():
                return row is not None and row.fields[fact.field] == fact.value
            case KeyAbsent():
                return row is not None and fact.key not in row.fields[fact.field]

    def _change(
        self, draft: dict[Key, dict[str, Any]], change: Change, touches: set[Key], uuids: dict[Key, str]
    ) -> None:
        key = (change.cls, change.ref)
        declared = model.classes[change.cls].fields
        if isinstance(change, Delete):
            draft.pop(key, None)
            return
        if isinstance(change, Create):
            if any(change.ref == ref for _, ref in [*draft, *self.rows]):
                raise ApiError("DB_CONFLICT")
            row = {
                name: copy.deepcopy(change.fields.get(name, item.initial()))
                for name, item in declared.items()
                if (change.cls, name) not in LISTS
            }
            row["uuid"] = row["uuid"] or uuids.get(key, f"made for {change.ref}")
            self._claim(draft, change.cls, row["uuid"])
            draft[key] = row
            return
        if isinstance(change, Update) and not change.fields:
            return
        if key not in draft:
            raise ApiError("HANDLE_INVALID", *key)
        row = draft[key]
        match change:
            case Update():
                for name, value in change.fields.items():
                    if name == "uuid" and value != row["uuid"]:
                        self._claim(draft, change.cls, value)
                    row[name] = value
            case Touch():
                touches.add(key)
            case MapPut():
                if change.new and change.key in row[change.field]:
                    raise ApiError("MAP_DUPLICATE_KEY")
                row[change.field][change.key] = change.value
            case MapDrop():
                row[change.field].pop(change.key, None)
            case SetAdd():
                if change.value not in row[change.field]:
                    row[change.field] = [change.value, *row[change.field]]
            case SetDrop():
                row[change.field] = [member for member in row[change.field] if member != change.value]

    @staticmethod
    def _claim(draft: dict[Key, dict[str, Any]], cls: str, uuid: str) -> None:
        if any(row["uuid"] == uuid for row in draft.values()):
            raise ApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", cls, "uuid", uuid)

    def _become(self, draft: dict[Key, dict[str, Any]], touches: set[Key]) -> dict[Key, str]:
        before, lists = dict(self.rows), self.lists()
        now = self.generation + 1
        kinds: dict[Key, str] = {}
        for key in [*self.rows, *(key for key in draft if key not in self.rows)]:
            if key not in draft:
                kinds[key] = "del"
            elif key not in self.rows:
                kinds[key] = "add"
            elif draft[key] != self.rows[key].fields or key in touches:
                kinds[key] = "mod"
        if not kinds:
            return {}
        self.rows = {
            key: ModelRow(draft[key], before[key].created, before[key].modified) for key in before if key in draft
        }
        self.rows |= {key: ModelRow(draft[key], now, now) for key in draft if key not in before}
        after = self.lists()
        for cls, ref, name in lists.keys() | after.keys():
            if lists.get((cls, ref, name)) != after.get((cls, ref, name)) and (cls, ref) in self.rows:
                kinds.setdefault((cls, ref), "mod")
        for key, kind in kinds.items():
            if kind == "mod":
                self.rows[key].modified = now
            elif kind == "del":
                self.deleted.setdefault(key[0], []).append((before[key].created, now, key[1]))
        self.generation = now
        self.touched.append((now, set(kinds)))
        return kinds
