"""How the values of rows are kept: once for all rows that hold the same, so that many rows cost little.

A pool of ten thousand VMs holds some seventy thousand rows, most of whose values are the same few: references to the
network, empty maps, the platform flags of one template. Texts are interned; lists and maps are frozen and shared.
Encoders profit as well: what is the same object as in the row before need not be encoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from typing import Any, Final

from shared.datamodel.schema import Class
from shared.datamodel.types import DATETIME, INT, STRING, EnumType, MapType, RefType, SetType, Type
from shared.frozen import EMPTY_LIST, EMPTY_MAP, FrozenList, FrozenMap

Keep = Callable[[Any], Any]
"""From a value that came in a change to the equal one that the row holds."""

REMEMBERED: Final = 8192
"""Values that are looked for when another comes: at least so many of the latest, at most twice as many."""


LONGEST: Final = 2048
"""Characters of a list or map that is looked for: nobody can fill the memory with long ones that no row holds."""


class _Known:
    """The values met lately. Those in use stay: what is found among the older ones counts as new again."""

    __slots__ = ("_make", "_newer", "_older")

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._newer: dict[Any, Any] = {}
        self._older: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        """The value made from that key, or from an equal one before."""
        found = self._newer.get(key)
        if found is None:
            found = self._older.get(key)
            if found is None:
                found = self._make(key)
            if len(self._newer) >= REMEMBERED:
                self._older, self._newer = self._newer, {}
            self._newer[key] = found
        return found


_sets = _Known(FrozenList)
_maps = _Known(FrozenMap)
_numbers = _Known(lambda number: number)


def _text(value: Any) -> Any:
    return intern(value) if type(value) is str else value


def _texts(value: Any) -> Any:
    if not value:
        return EMPTY_LIST
    texts = tuple(map(_text, value))
    return _sets.get(texts) if sum(map(len, texts)) <= LONGEST else FrozenList(texts)


def _text_map(value: Any) -> Any:
    if not value:
        return EMPTY_MAP
    pairs = tuple([(_text(key), _text(item)) for key, item in value.items()])
    return _maps.get(pairs) if sum(map(len, value)) + sum(map(len, value.values())) <= LONGEST else FrozenMap(pairs)


def _number(value: Any) -> Any:
    return _numbers.get(value) if type(value) is int else value


def _set(value: Any) -> Any:
    return FrozenList(value) if value else EMPTY_LIST


def _map(value: Any) -> Any:
    return FrozenMap(value) if value else EMPTY_MAP


def _is_text(type_: Type) -> bool:
    return type_ in (STRING, DATETIME) or isinstance(type_, RefType | EnumType)


def keeper(type_: Type) -> Keep | None:
    """How values of a type are kept; None: as they are.

    Only containers of texts are shared: numbers and booleans of one value are equal, and mean different things.
    """
    match type_:
        case SetType():
            return _texts if _is_text(type_.of) else _set
        case MapType():
            return _text_map if _is_text(type_.value) else _map
    if type_ == INT:
        return _number
    return _text if _is_text(type_) else None


class Columns:
    """The fields of one class. `blank`: a row of defaults, in the model's order. `keep`: of the stored fields."""

    __slots__ = ("blank", "keep")

    def __init__(self, cls: Class, derived: tuple[str, ...]) -> None:
        keep = {name: keeper(field.type) for name, field in cls.fields.items()}
        self.blank: dict[str, Any] = {}
        for name, field in cls.fields.items():
            make, value = keep[name], field.initial()
            self.blank[name] = value if make is None else make(value)
        self.keep = {name: make for name, make in keep.items() if name not in derived}

    def row(self, values: dict[str, Any]) -> dict[str, Any]:
        """All fields of a new row; what is not given has its default, names that are no fields are ignored."""
        fields = self.blank.copy()
        keep = self.keep
        for name, value in values.items():
            if name in keep:
                make = keep[name]
                fields[name] = value if make is None else make(value)
        return fields

    def value(self, name: str, value: Any) -> Any:
        """A new value of a stored field."""
        make = self.keep[name]
        return value if make is None else make(value)
