"""Writes the rows of a store, as they are at one moment, piece by piece.

Bytes, order of tables, rows and attributes are the original's, so that its program reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from shared import garbage
from shared.database_dump import text
from shared.database_dump.schema import SCHEMA_VERSION, TABLES, Table
from shared.datamodel import values
from shared.datamodel.types import BOOL, INT, EnumType, MapType, RefType, Scalar, SetType, Type
from shared.store import Store

PIECE: Final = 32 * 1024
"""Characters after which a piece ends: some twenty VMs, half a millisecond."""

REMEMBERED: Final = 20_000
"""Texts of values that are kept: most rows hold what others do."""


_Row = tuple[str, int, int, Mapping[str, Any]]
"""Reference, generations, fields: those never change, the store gives a row new ones instead."""


@dataclass(frozen=True, slots=True)
class Moment:
    """All rows that a dump has, as they were together at `generation`."""

    generation: int
    tables: dict[str, list[_Row]]


def moment(store: Store) -> Moment:
    """Takes references only: ten thousand VMs with all that is theirs in some 20 ms."""
    with garbage.paused():
        return Moment(store.generation, {name: _rows(store, table) for name, table in TABLES.items()})


def _rows(store: Store, table: Table) -> list[_Row]:
    if not table.persistent:
        return []
    return [(ref, row.created, row.modified, row.fields) for ref, row in store.tables[table.name].rows.items()]


def pieces(taken: Moment) -> Iterator[bytes]:
    """The document. Each piece takes about as long to make as any other, so that a caller can let others go first."""
    waiting: list[str] = []
    length = 0
    for part in _parts(taken):
        waiting.append(part)
        length += len(part)
        if length >= PIECE:
            yield "".join(waiting).encode()
            waiting, length = [], 0
    yield "".join(waiting).encode()


def _parts(taken: Moment) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<database><manifest>'
    major, minor = SCHEMA_VERSION
    for key, number in (("schema_major_vsn", major), ("schema_minor_vsn", minor)):
        yield f'<pair key="{key}" value="{number}"/>'
    yield f'<pair key="generation_count" value="{taken.generation}"/></manifest>'
    texts = _Texts()
    for name, table in TABLES.items():
        rows = sorted(taken.tables[name], key=itemgetter(0))  # the order of their bytes too
        if not rows:
            yield f'<table name="{name}"/>'
            continue
        yield f'<table name="{name}">'
        columns = [
            (f' {column.name}="', column.field.name if column.field is not None else "", texts.of(column.field.type))
            if column.field is not None
            else (f' {column.name}="', "", None)
            for column in table.columns.values()
        ]
        for row in rows:
            ref, created, modified, fields = row
            parts = [f'<row ref="{text.name(ref)}" __ctime="{created}" __mtime="{modified}"']
            for opening, field, shown in columns:
                parts.append(opening)
                parts.append(text.value(ref) if shown is None else shown(fields[field]))
                parts.append('"')
            parts.append("/>")
            yield "".join(parts)
        yield "</table>"
    yield "</database>"


class _Texts:
    """From values to the text of their attribute, each worked out once while it is remembered."""

    def __init__(self) -> None:
        self._plain: dict[str, str] = {}
        self._same: dict[int, tuple[Any, str]] = {}

    def of(self, type_: Type) -> Any:
        if type_ is BOOL:
            return _boolean
        if type_ is INT:
            return str
        if isinstance(type_, SetType | MapType):
            return lambda value: self._container(type_, value)
        if isinstance(type_, RefType | EnumType) or (isinstance(type_, Scalar) and isinstance(type_.zero, str)):
            return self._text
        return lambda value: text.value(values.to_text(type_, value))

    def _text(self, value: str) -> str:
        found = self._plain.get(value)
        if found is None:
            if len(self._plain) >= REMEMBERED:
                self._plain.clear()
            found = self._plain[value] = text.value(value)
        return found

    def _container(self, type_: Type, value: Any) -> str:
        """Rows share equal values: the same object is known by its address, which it keeps while it is held here."""
        if not value:
            return "()"
        found = self._same.get(id(value))
        if found is None:
            if len(self._same) >= REMEMBERED:
                self._same.clear()
            found = self._same[id(value)] = (value, text.value(values.to_text(type_, value)))
        return found[1]


def _boolean(value: bool) -> str:
    return "true" if value else "false"
