"""Every row has the fields of its class and no others, each of its type."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from services.db.check.findings import DropField, DropRow, Finding, Kind, Repair, SetField, Severity
from shared.contracts.db import SnapshotRow
from shared.datamodel import values
from shared.datamodel.schema import MISSING, Class, Field
from shared.datamodel.text import is_storable, storable
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, EnumType, MapType, RefType, Scalar, SetType, Type
from shared.errors import ApiError
from shared.store import LINKS, Store

Test = Callable[[Any], bool]

CLASSES: Final[dict[str, Class]] = {name: table.cls for name, table in Store().tables.items()}
"""Those that have rows."""

_INT64: Final = range(-(2**63), 2**63)


def check(rows: Iterable[SnapshotRow]) -> Iterator[Finding]:
    for row in rows:
        layout = _LAYOUTS.get(row.cls)
        if layout is None:
            what = "no class of this name has rows"
            yield Finding(Kind.UNKNOWN_CLASS, row.cls, row.ref, "", what, DropRow())
        else:
            yield from _check_row(layout, row)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The stored fields of a class, with the test for each. `derived`: fields that are not kept, but follow."""

    declared: dict[str, Field]
    derived: frozenset[str]
    tests: dict[str, Test]


def _check_row(layout: _Layout, row: SnapshotRow) -> Iterator[Finding]:
    fields = row.fields
    for name, test in layout.tests.items():
        if name not in fields:
            yield _missing(row, layout.declared[name])
        elif not test(fields[name]):
            yield _wrong(row, layout.declared[name], fields[name], test)
    if len(fields) > len(layout.tests) or not fields.keys() <= layout.tests.keys():
        for name in fields:
            if name not in layout.tests and name not in layout.derived:
                what = f"{row.cls} has no such field"
                yield Finding(Kind.UNKNOWN_FIELD, row.cls, row.ref, name, what, DropField())


def _missing(row: SnapshotRow, declared: Field) -> Finding:
    repair: Repair | None = None
    what = "the field is missing, and has no default"
    if not declared.persist:
        repair, what = SetField(declared.type.empty()), "the field is missing"
    elif declared.default is not MISSING:
        repair, what = SetField(declared.initial()), "the field is missing"
    return Finding(Kind.MISSING_FIELD, row.cls, row.ref, declared.name, what, repair)


def _wrong(row: SnapshotRow, declared: Field, value: Any, test: Test) -> Finding:
    cls, ref, name, type_ = row.cls, row.ref, declared.name, declared.type
    try:
        plain = values.check(type_, value)
    except ApiError:
        plain = None
    if plain is None and _has_unknown_word(type_, value):
        what = f"{_shown(value)} is no word of {type_}"
        return Finding(Kind.UNKNOWN_WORD, cls, ref, name, what, severity=Severity.NOTE)
    if plain == value and not is_storable(value):
        what = f"{_shown(value)} holds what no XML document can hold"
        return Finding(Kind.UNSTORABLE_TEXT, cls, ref, name, what, SetField(storable(plain)))
    plain = storable(plain)
    repair: Repair | None = None
    if test(plain):
        repair = SetField(plain)
    elif not declared.persist:
        repair = SetField(type_.empty())
    return Finding(Kind.WRONG_TYPE, cls, ref, name, f"{_shown(value)} is no {type_}", repair)


def _has_unknown_word(type_: Type, value: Any) -> bool:
    """Whether nothing but words of enums is wrong: as text it would do."""
    match type_:
        case EnumType():
            return isinstance(value, str)
        case SetType(of=EnumType()):
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case MapType(value=EnumType()):
            return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- tests


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_storable(value)


def _is_int(value: Any) -> bool:
    return type(value) is int and value in _INT64


def _is_float(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_datetime(value: Any) -> bool:
    try:
        return bool(values.check(DATETIME, value) == value)
    except ApiError:
        return False


_SCALARS: Final[dict[Type, Test]] = {INT: _is_int, FLOAT: _is_float, BOOL: _is_bool, DATETIME: _is_datetime}


def _test(type_: Type) -> Test:
    """Whether a value is a plain one of the type."""
    match type_:
        case EnumType():
            words = frozenset(type_.values)
            return lambda value: isinstance(value, str) and value in words
        case SetType():
            of = _test(type_.of)
            return lambda value: isinstance(value, list) and all(map(of, value))
        case MapType():
            key, item = _key_test(type_.key), _test(type_.value)
            return lambda value: isinstance(value, dict) and all(map(key, value)) and all(map(item, value.values()))
        case RefType():
            return _is_text
        case Scalar():
            return _SCALARS.get(type_, _is_text)
    raise TypeError(f"no field of a row is of type {type_}")


def _key_test(type_: Type) -> Test:
    """Keys are text whatever they stand for."""
    if type_ is INT:
        return lambda key: isinstance(key, str) and key.removeprefix("-").isdecimal() and str(int(key)) == key
    return _test(type_)


_LAYOUTS: Final = {
    name: _Layout(
        cls.fields,
        frozenset(LINKS[name].derived),
        {field.name: _test(field.type) for field in cls.fields.values() if field.name not in LINKS[name].derived},
    )
    for name, cls in CLASSES.items()
}
