"""Reads a dump, of this program or of the original, as its bytes arrive.

Strict about damage: what cannot be understood ends it, with line, table and row. Lenient about age: columns that are
missing have their defaults, tables and columns that nobody knows here are left out and counted. So have numbers that
are none (`nan`, `inf`), which the original keeps and JSON cannot say.

Nothing outside the document is ever looked at, and no entity is expanded: a document that declares any is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

from shared import garbage
from shared.contracts.db import SnapshotRow
from shared.database_dump import text
from shared.database_dump.schema import TABLES, Table
from shared.datamodel import values
from shared.datamodel.schema import MISSING
from shared.datamodel.types import DATETIME, EPOCH, STRING, EnumType, RefType, Type
from shared.errors import ApiError

LARGEST_ELEMENT: Final = 16 * 1024 * 1024
"""Bytes of the largest row."""
LARGEST_GENERATION: Final = 2**62
REMEMBERED: Final = 20_000
PIECE: Final = 64 * 1024

_MANIFEST: Final = ("schema_major_vsn", "schema_minor_vsn", "generation_count")


class DumpError(Exception):
    """Not a database that can be read; the text says where and why."""


@dataclass(slots=True)
class Dump:
    """`rows`: of persistent tables, with every stored field; times are the document's. `schema`: major, minor.

    `unknown`: tables, and columns as `table.column`, that were left out: in how many rows.
    """

    schema: tuple[int, int] = (0, 0)
    generation: int = 0
    rows: list[SnapshotRow] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)


_Known = dict[str, Any]
"""Of one type: texts met lately, as they stand in the document, to values."""


class _Reading:
    """How rows of one table are read. `blank`: a row of defaults. `required`: columns without one.

    `columns`: to field, values known already, and type. Columns that are text are taken as they stand: no values known.
    """

    def __init__(self, table: Table, known: dict[Type, _Known]) -> None:
        self.table = table
        self.blank: dict[str, Any] = {}
        self.required: list[str] = []
        self.columns: dict[str, tuple[str, _Known | None, Type]] = {}
        self.plan = _Plan(self, [])
        for column in table.columns.values():
            field = column.field
            if field is None or column.derived:
                continue
            self.blank[field.name] = field.type.empty() if column.volatile else field.initial()
            if column.read:
                values_known = None if _is_text(field.type) else known.setdefault(field.type, {})
                self.columns[column.name] = (field.name, values_known, field.type)
                if field.default is MISSING:
                    self.required.append(column.name)


class _Plan:
    """What is done with the attributes of a row that has these; mostly it is those of the row before.

    `takes`: place of the value, and what `_Reading.columns` says of it.
    """

    __slots__ = ("missing", "names", "takes", "unknown")

    def __init__(self, reading: _Reading, names: list[str]) -> None:
        self.names = names
        self.takes: list[tuple[int, str, str, _Known | None, Type]] = []
        self.unknown: list[str] = []
        for place, column in enumerate(names):
            if column in reading.columns:
                self.takes.append((2 * place + 1, column, *reading.columns[column]))
            elif column not in reading.table.columns and column not in _OF_ROWS:
                self.unknown.append(f"{reading.table.name}.{column}")
        self.missing = next((column for column in reading.required if column not in names), None)


_OF_ROWS: Final = ("ref", "__ctime", "__mtime")


def _is_text(type_: Type) -> bool:
    """Every text is a value."""
    return type_ is STRING or isinstance(type_, RefType | EnumType)


class Reader:
    """`feed` the document in pieces, then `close` it: that gives the rows. Both raise `DumpError`.

    `tolerant`: of what is wrong with a row, so that all of it can be told: values that are none come as their text,
    what is missing is missing, references and uuids need not be unique.
    """

    def __init__(self, *, tolerant: bool = False) -> None:
        self._tolerant = tolerant
        self._dump = Dump()
        self._manifest: dict[str, str] = {}
        self._manifest_complete = False
        self._open: list[str] = []
        self._table = ""
        self._reading: _Reading | None = None
        self._refs: set[str] = set()
        self._uuids: dict[str, str] = {}
        known: dict[Type, _Known] = {}
        self._readings = {name: _Reading(table, known) for name, table in TABLES.items() if table.persistent}
        self._fed = 0
        self._parser = parser = expat.ParserCreate()
        parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._declared

    def feed(self, data: bytes) -> None:
        self._fed += len(data)
        with self._located():
            self._parser.Parse(data, False)
        if self._fed - self._parser.CurrentByteIndex > LARGEST_ELEMENT:
            raise DumpError(f"{self._where()}: an element of more than {LARGEST_ELEMENT} bytes")

    def close(self) -> Dump:
        with self._located():
            self._parser.Parse(b"", True)
        dump, manifest = self._dump, self._told()
        dump.schema, dump.generation = manifest.schema, manifest.generation
        return dump

    def taken(self) -> list[SnapshotRow]:
        """The rows read since the last time it was asked; `close` gives only the others."""
        rows, self._dump.rows = self._dump.rows, []
        return rows

    def manifest(self) -> Dump | None:
        """What the manifest says, before the rows are there; None while it is not complete. Raises `DumpError`."""
        return self._told() if self._manifest_complete else None

    def _told(self) -> Dump:
        major, minor, generation = (self._number(key) for key in _MANIFEST)
        return Dump((major, minor), generation)

    def _number(self, key: str) -> int:
        found = self._manifest.get(key)
        if found is None:
            raise DumpError(f"the manifest has no {key}")
        number = _decimal(found)
        if number is None or number > LARGEST_GENERATION:
            raise DumpError(f"the manifest's {key} is no number that can be: {found[:40]!r}")
        return number

    # ---- where

    @contextmanager
    def _located(self) -> Iterator[None]:
        try:
            yield
        except expat.ExpatError as error:
            what = expat.errors.messages.get(error.code, "") if isinstance(expat.errors.messages, dict) else ""
            raise DumpError(f"line {error.lineno}, column {error.offset}: {what or error}{self._inside()}") from None

    def _where(self) -> str:
        return f"line {self._parser.CurrentLineNumber}, column {self._parser.CurrentColumnNumber}"

    def _inside(self) -> str:
        return f" (in table {self._table})" if self._table else ""

    def _wrong(self, why: str) -> DumpError:
        return DumpError(f"{self._where()}{self._inside()}: {why}")

    # ---- elements

    def _declared(self, *_: Any) -> None:
        raise self._wrong("a document type declaration: a database has none")

    def _start(self, name: str, attributes: list[str]) -> None:
        """`attributes`: names and values in turn."""
        place = self._open[-1] if self._open else ""
        if (place, name) not in _PLACES:
            raise self._wrong(f"an element {name!r} in {place or 'the document'!r}")
        self._open.append(name)
        match name:
            case "row":
                self._row(attributes)
            case "table":
                if attributes[::2] != ["name"]:
                    raise self._wrong("a table has one attribute, its name")
                self._table = attributes[1]
                self._reading = self._readings.get(self._table)
                if self._table not in TABLES:
                    self._dump.unknown.setdefault(self._table, 0)
            case "pair":
                if attributes[::2] != ["key", "value"]:
                    raise self._wrong("a pair has a key and a value, in this order")
                self._manifest[attributes[1]] = attributes[3]

    def _end(self, name: str) -> None:
        self._open.pop()
        if name == "table":
            self._table, self._reading = "", None
        elif name == "manifest":
            self._manifest_complete = True

    # ---- rows

    def _row(self, given: list[str]) -> None:
        names = given[::2]
        if "ref" not in names:
            raise self._wrong("a row without ref")
        ref = given[2 * names.index("ref") + 1]
        created = self._time(ref, names, given, "__ctime")
        modified = self._time(ref, names, given, "__mtime")
        reading = self._reading
        if reading is None:
            if self._table not in TABLES:
                self._dump.unknown[self._table] += 1
            return
        fields = self._fields(reading, ref, names, given)
        if not self._tolerant:
            self._unique(ref, fields.get("uuid", ""))
        row = SnapshotRow(cls=self._table, ref=ref, created=created, modified=modified, fields=fields)
        self._dump.rows.append(row)

    def _time(self, ref: str, names: list[str], given: list[str], name: str) -> int:
        found = _decimal(given[2 * names.index(name) + 1]) if name in names else 0
        if found is None or found > LARGEST_GENERATION:
            raise self._wrong(f"row {ref}: {name} is no generation")
        return found

    def _fields(self, reading: _Reading, ref: str, names: list[str], given: list[str]) -> dict[str, Any]:
        """Rows share equal values; nobody changes them in place."""
        if reading.plan.names != names:
            reading.plan = _Plan(reading, names)
        plan, fields = reading.plan, reading.blank.copy()
        for place, column, name, known, type_ in plan.takes:
            shown = given[place]
            if known is None:
                fields[name] = text.unguarded(shown) if "%" in shown else shown
                continue
            value = known.get(shown)
            fields[name] = self._value(known, type_, ref, column, shown) if value is None else value
        for column in plan.unknown:
            self._dump.unknown[column] = self._dump.unknown.get(column, 0) + 1
        if plan.missing is not None:
            if not self._tolerant:
                raise self._wrong(f"row {ref}: no {plan.missing}, which has no default")
            for column in reading.required:
                if column not in names:
                    del fields[reading.columns[column][0]]
        return fields

    def _value(self, known: _Known, type_: Type, ref: str, column: str, shown: str) -> Any:
        plain = text.unguarded(shown)
        try:
            value = EPOCH if type_ is DATETIME and not plain else values.from_text(type_, plain)
        except ApiError as error:
            if self._tolerant:
                return plain
            raise self._wrong(f"row {ref}, {column}: {error.params[0] if error.params else error}") from None
        if isinstance(value, float) and not math.isfinite(value) and not self._tolerant:
            reading = self._readings[self._table]
            return reading.blank[reading.columns[column][0]]
        if len(known) >= REMEMBERED:
            known.clear()
        known[shown] = value
        return value

    def _unique(self, ref: str, uuid: str) -> None:
        """Over all tables."""
        if ref in self._refs:
            raise self._wrong(f"row {ref}: the reference is another row's too")
        self._refs.add(ref)
        if uuid:
            other = self._uuids.setdefault(uuid, ref)
            if other != ref:
                raise self._wrong(f"row {ref}: its uuid {uuid} is that of {other} too")


_PLACES: Final = {
    ("", "database"),
    ("database", "manifest"),
    ("manifest", "pair"),
    ("database", "table"),
    ("table", "row"),
}
"""Which element may be in which."""


def _decimal(shown: str) -> int | None:
    return int(shown) if shown.isascii() and shown.isdigit() and len(shown) < 20 else None


def read(path: Path) -> Dump:
    """A whole file. It blocks. Raises `DumpError`, `OSError`."""
    reader = Reader()
    with garbage.paused(), path.open("rb") as file:
        while data := file.read(PIECE):
            reader.feed(data)
    return reader.close()
