"""Rows, transactions and deltas as registers: one for each thing that a single write sets.

    ("network", ref, "")                  whether the row is there: True or absent
    ("network", ref, "name_label")        a plain field
    ("network", ref, "other_config[k]")   a key of a map
    ("network", ref, "tags{x}")           a member of a set: True or absent

Absent is None, for all of them. A row that is deleted makes every register of it absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

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
    RowDeleted,
    RowPresent,
    SetAdd,
    SetDrop,
    Unchanged,
    Update,
)
from shared.datamodel import model
from shared.datamodel.schema import MISSING
from shared.store import Store

Register = tuple[str, str, str]
Value = str | int | float | bool | None
Values = dict[Register, Value]

TRACKED: Final[Mapping[str, tuple[str, ...]]] = {
    "network": ("name_label", "name_description", "other_config", "tags"),
    "VM": ("name_label", "user_version", "other_config", "current_operations"),
    "VBD": ("VM", "userdevice"),
    "task": ("name_label", "name_description", "progress"),
}
"""What the clients write. Other classes and fields (lists that follow from references) are compared as text."""


def of_fields(cls: str, ref: str, fields: Mapping[str, Any]) -> Values:
    """The present registers of some fields of a row."""
    found: Values = {}
    for name in TRACKED.get(cls, ()):
        if name not in fields:
            continue
        value = fields[name]
        if isinstance(value, Mapping):
            found.update({(cls, ref, f"{name}[{key}]"): item for key, item in value.items()})
        elif isinstance(value, list | tuple):
            found.update({(cls, ref, f"{name}{{{member}}}"): True for member in value})
        else:
            found[cls, ref, name] = value
    return found


def of_row(cls: str, ref: str, fields: Mapping[str, Any]) -> Values:
    return {(cls, ref, ""): True, **of_fields(cls, ref, fields)}


def of_store(store: Store) -> Values:
    """All present registers."""
    found: Values = {}
    for cls in TRACKED:
        for ref, row in store.rows(cls).items():
            found.update(of_row(cls, ref, row))
    return found


def of_delta(changes: Iterable[RowChange]) -> Values:
    """What is present after it of the rows and fields that it names; deleted rows by their first register."""
    found: Values = {}
    for change in changes:
        if change.cls not in TRACKED:
            continue
        if isinstance(change, RowDeleted):
            found[change.cls, change.ref, ""] = None
        else:
            found.update(of_fields(change.cls, change.ref, change.fields))
            found[change.cls, change.ref, ""] = True
    return found


def _defaults(cls: str) -> dict[str, Any]:
    fields = [model.classes[cls].fields[name] for name in TRACKED.get(cls, ())]
    return {field.name: field.type.empty() if field.default is MISSING else field.initial() for field in fields}


def written(changes: Iterable[Change]) -> Values:
    """What a transaction sets, the last one for each register. A `Delete` is its row's first register only."""
    writes: Values = {}
    for change in changes:
        cls, ref = change.cls, change.ref
        match change:
            case Create():
                writes.update(of_row(cls, ref, {**_defaults(cls), **change.fields}))
            case Update():
                writes.update(of_fields(cls, ref, change.fields))
            case Delete():
                writes[cls, ref, ""] = None
            case MapPut():
                writes[cls, ref, f"{change.field}[{change.key}]"] = change.value
            case MapDrop():
                writes[cls, ref, f"{change.field}[{change.key}]"] = None
            case SetAdd():
                writes[cls, ref, f"{change.field}{{{change.value}}}"] = True
            case SetDrop():
                writes[cls, ref, f"{change.field}{{{change.value}}}"] = None
            case _:
                raise TypeError(f"a history cannot hold {change!r}")
    return writes


def read(facts: Iterable[Precondition], store: Store | None) -> Values:
    """What a transaction that was committed has read. `store`: what it was decided on, for `Unchanged` rows."""
    reads: Values = {}
    for fact in facts:
        cls, ref = fact.cls, fact.ref
        match fact:
            case Equals():
                reads[cls, ref, ""] = True
                reads.update(of_fields(cls, ref, {fact.field: fact.value}))
            case RowPresent():
                reads[cls, ref, ""] = True
            case RowAbsent():
                reads[cls, ref, ""] = None
            case KeyAbsent():
                reads[cls, ref, ""] = True
                reads[cls, ref, f"{fact.field}[{fact.key}]"] = None
            case Unchanged():
                row = store.row(cls, ref) if store is not None else None
                if row is None:
                    raise ValueError(f"{cls} {ref} is said to be unchanged by who does not know it")
                reads.update(of_row(cls, ref, row))
    return reads


def volatile(register: Register) -> bool:
    """Whether it may be lost, as a whole, when the machine starts anew."""
    cls, _, path = register
    declared = model.classes[cls]
    field = path.partition("[")[0].partition("{")[0]
    return not declared.persist or bool(field and not declared.fields[field].persist)
