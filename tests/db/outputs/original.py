"""What the original's program demands of a database file before it starts with it, checked on the document's bytes.

Written from what its reader does (facts, not code): the XML, elements and attributes; tables and columns of its schema
(`db-columns.tsv`); values as it takes them apart; references and uuids unique over all tables, also empty ones; columns
without a default. Beyond that, what its writer promises and other readers may rely on: order, and blanks guarded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from tests.datamodel import reference

_INT64: Final = range(-(2**63), 2**63)
_NUMBER: Final = re.compile(r"-?[0-9]+")
_GUARDED: Final = re.compile(r"%(.)", re.DOTALL)
_BLANKS: Final = {".": " ", "t": "\t", "n": "\n", "r": "\r", "%": "%", "_": "  "}


class Refused(Exception):
    """The original's program would not start; the text says why."""


@dataclass(frozen=True)
class Column:
    """`kind`: set, map or text. `default`: whether a row may come without it."""

    kind: str
    removed: bool
    default: bool


@dataclass
class Accepted:
    """What the original knows after it: reference to columns with their text, by table."""

    manifest: dict[str, int] = field(default_factory=dict)
    tables: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)


def schema() -> dict[str, dict[str, Column]]:
    tables: dict[str, dict[str, Column]] = {}
    heading, *lines = reference.table("db-columns.tsv")
    for line in lines:
        row = dict(zip(heading, line, strict=True))
        kind = row["type"].partition("(")[0]
        column = Column(
            kind if kind in ("set", "map") else "text", row["lifecycle"] == "removed", default=row["default"] != "-"
        )
        tables.setdefault(row["class"], {"_ref": Column("text", False, False)})[row["column"]] = column
    return tables


def persistent() -> set[str]:
    heading, *lines = reference.table("db-columns.tsv")
    return {line[0] for line in lines if line[heading.index("table_persistent")] == "Y"}


def accept(document: bytes) -> Accepted:
    """Raises `Refused`."""
    reading = _Reading()
    parser = expat.ParserCreate("UTF-8")
    parser.ordered_attributes = True
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise Refused(f"no XML: {error}") from error
    return reading.finished()


class _Reading:
    def __init__(self) -> None:
        self._schema = schema()
        self._persistent = persistent()
        self._found = Accepted()
        self._stack: list[str] = []
        self._table = ""
        self._keys: set[tuple[str, str]] = set()

    def text(self, data: str) -> None:
        raise Refused(f"text between elements: {data!r}")

    def start(self, name: str, attributes: list[str]) -> None:
        names, values = attributes[::2], attributes[1::2]
        self._stack.append(name)
        match name, names:
            case (("database" | "manifest"), []):
                return
            case "pair", ["key", "value"]:
                if not _NUMBER.fullmatch(values[1]) or int(values[1]) not in _INT64:
                    raise Refused(f"manifest: {values}")
                self._found.manifest[values[0]] = int(values[1])
            case "table", ["name"]:
                self._begin(values[0])
            case "row", _:
                self._row(dict(zip(names, values, strict=True)), names)
            case _:
                raise Refused(f"an element {name} with {names}")

    def end(self, name: str) -> None:
        self._stack.pop()

    def _begin(self, name: str) -> None:
        if name not in self._schema:
            raise Refused(f"a table {name}")
        if self._found.tables and name.encode() <= list(self._found.tables)[-1].encode():
            raise Refused(f"table {name} is out of order, or there twice")
        self._table = name
        self._found.tables[name] = {}

    def _row(self, given: dict[str, str], names: list[str]) -> None:
        table, columns = self._table, self._schema[self._table]
        if table not in self._persistent:
            raise Refused(f"a row of {table}, which the original never keeps")
        if names[:3] != ["ref", "__ctime", "__mtime"] or names[3:] != sorted(names[3:], key=str.encode):
            raise Refused(f"{table}: columns in the order {names}")
        ref = given["ref"]
        for name in ("__ctime", "__mtime"):
            if not _NUMBER.fullmatch(given[name]) or int(given[name]) not in _INT64:
                raise Refused(f"{table} {ref}: {name} is {given[name]}")
        row = {name: self._value(name, given[name]) for name in names[3:]}
        for name, column in columns.items():
            if name not in row and not column.default:
                raise Refused(f"{table} {ref}: no {name}, which has no default")
        if row["_ref"] != ref:
            raise Refused(f"{table} {ref}: _ref is {row['_ref']}")
        self._unique("ref", ref)
        if "uuid" in row:
            self._unique("uuid", row["uuid"])
        self._found.tables[table][ref] = row

    def _value(self, name: str, shown: str) -> str:
        columns = self._schema[self._table]
        if name not in columns:
            raise Refused(f"an unexpected column in table {self._table}: {name}")
        if re.search(r"[ \t\n\r]", shown):
            raise Refused(f"{self._table}.{name}: blanks that are not guarded in {shown!r}")
        plain = _GUARDED.sub(lambda sign: _BLANKS.get(sign[1], sign[0]), shown)
        if not columns[name].removed:
            _take_apart(columns[name].kind, plain)
        return plain

    def _unique(self, kind: str, key: str) -> None:
        if (kind, key) in self._keys:
            raise Refused(f"two rows with the {kind} {key!r}")
        self._keys.add((kind, key))

    def finished(self) -> Accepted:
        found = self._found
        if set(found.manifest) != {"schema_major_vsn", "schema_minor_vsn", "generation_count"}:
            raise Refused(f"a manifest of {sorted(found.manifest)}")
        missing = set(self._schema) - set(found.tables)
        if missing:
            raise Refused(f"no tables {sorted(missing)}")
        return found


def _take_apart(kind: str, plain: str) -> None:
    """Raises `Refused` for what is no set of atoms, or no list of pairs of them."""
    if kind == "text":
        return
    node, rest = _node(plain, 0)
    if plain[rest:].strip() or not isinstance(node, list):
        raise Refused(f"no {kind}: {plain!r}")
    for item in node:
        if kind == "set" and not isinstance(item, str):
            raise Refused(f"an item of a set: {item!r}")
        if kind == "map" and not (isinstance(item, list) and len(item) == 2 and all(isinstance(x, str) for x in item)):
            raise Refused(f"an item of a map: {item!r}")


_Node = str | list["_Node"]


def _node(text: str, at: int) -> tuple[_Node, int]:
    """An s-expression: an atom in quotes, in which a backslash guards the next sign, or a list in parentheses."""
    while at < len(text) and text[at].isspace():
        at += 1
    if at == len(text):
        raise Refused(f"an end in the middle: {text!r}")
    if text[at] in "'\"":
        quote, atom, at = text[at], "", at + 1
        while at < len(text) and text[at] != quote:
            at += text[at] == "\\"
            if at == len(text):
                break
            atom, at = atom + text[at], at + 1
        if at == len(text):
            raise Refused(f"an atom without an end: {text!r}")
        return atom, at + 1
    if text[at] != "(":
        raise Refused(f"a bare symbol: {text!r}")
    items: list[_Node] = []
    at += 1
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at < len(text) and text[at] == ")":
            return items, at + 1
        item, at = _node(text, at)
        items.append(item)
