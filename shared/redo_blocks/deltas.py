"""Row changes as the deltas that the original's redo log knows, and back.

A delta is a word of 9 bytes, then texts, each as 8 digits (its length in bytes) and UTF-8. It has no room for more than
one field, so a commit that writes three fields is three deltas. Values are the database's text, unguarded
(`database-pool-ha` 1.3, 2.1). What is volatile never becomes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.contracts.db import RowChange, RowCreated, RowDeleted, RowModified
from shared.database_dump import text
from shared.database_dump.schema import TABLES, Column
from shared.datamodel import values
from shared.datamodel.types import DATETIME, EPOCH
from shared.errors import ApiError

LONGEST: Final = 99_999_999
"""Bytes of a text, as far as 8 digits go."""

_WORD: Final = 9
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class CreateRow:
    """`columns`: every one that the table has, with its text."""

    table: str
    ref: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DeleteRow:
    table: str
    ref: str


@dataclass(frozen=True, slots=True)
class WriteField:
    table: str
    ref: str
    column: str
    value: str


Delta = CreateRow | DeleteRow | WriteField


class Malformed(Exception):
    """Bytes that are no delta, or a text that is no value of its column; the text says which."""


# ---- as bytes


def encode(delta: Delta) -> bytes:
    """Raises `Malformed` for a text longer than can be said."""
    match delta:
        case CreateRow():
            pairs = [_text(part) for pair in delta.columns for part in pair]
            count = b"%08d" % len(delta.columns)
            return b"".join((b"CreateRow", _text(delta.table), _text(delta.ref), count, *pairs))
        case DeleteRow():
            return b"DeleteRow" + _text(delta.table) + _text(delta.ref)
        case WriteField():
            return b"WriteFiel" + b"".join(map(_text, (delta.table, delta.ref, delta.column, delta.value)))


def _text(shown: str) -> bytes:
    data = shown.encode()
    if len(data) > LONGEST:
        raise Malformed(f"a text of {len(data)} bytes: a delta holds up to {LONGEST}")
    return b"%08d%b" % (len(data), data)


def decode(data: bytes) -> Delta:
    """Raises `Malformed`."""
    match data[:_WORD]:
        case b"CreateRow":
            (table, ref), at = _texts(data, _WORD, 2)
            columns, _ = _texts(data, at + _DIGITS, 2 * _number(data, at))
            return CreateRow(table, ref, tuple(zip(columns[::2], columns[1::2], strict=True)))
        case b"DeleteRow":
            (table, ref), _ = _texts(data, _WORD, 2)
            return DeleteRow(table, ref)
        case b"WriteFiel":
            (table, ref, column, value), _ = _texts(data, _WORD, 4)
            return WriteField(table, ref, column, value)
    raise Malformed(f"no kind of delta: {data[:_WORD]!r}")


def _texts(data: bytes, at: int, count: int) -> tuple[list[str], int]:
    """So many, and the offset behind them. Raises `Malformed`."""
    found = []
    try:
        for _ in range(count):
            begin = at + _DIGITS
            at = begin + _number(data, at)
            found.append(data[begin:at].decode())
            if at > len(data):
                raise Malformed(f"it ends {at - len(data)} bytes early")
    except UnicodeDecodeError:
        raise Malformed(f"a text that is no UTF-8: {data[begin : begin + 40]!r}") from None
    return found, at


def _number(data: bytes, at: int) -> int:
    digits = data[at : at + _DIGITS]
    if len(digits) < _DIGITS or not digits.isdigit():
        raise Malformed(f"no length: {digits!r}")
    return int(digits)


# ---- from and to changes of rows


def of_changes(changes: Sequence[RowChange]) -> Iterator[Delta]:
    """In the order in which they happen. Those of volatile tables and columns are left out."""
    for change in changes:
        table = TABLES.get(change.cls)
        if table is None or not table.persistent:
            continue
        match change:
            case RowDeleted():
                yield DeleteRow(change.cls, change.ref)
            case RowCreated():
                columns = table.columns.values()
                yield CreateRow(
                    change.cls, change.ref, tuple((column.name, _shown(column, change)) for column in columns)
                )
            case RowModified():
                for column in _written(change):
                    yield WriteField(change.cls, change.ref, column.name, _shown(column, change))


def generations(changes: Sequence[RowChange]) -> int:
    """How many a commit takes: readers skip a delta whose generation they have seen, so each has its own."""
    count = 0
    for change in changes:
        table = TABLES.get(change.cls)
        if table is not None and table.persistent:
            count += sum(1 for _ in _written(change)) if isinstance(change, RowModified) else 1
    return max(1, count)


def _written(change: RowModified) -> Iterator[Column]:
    by_field = _COLUMNS[change.cls]
    for name in change.fields:
        column = by_field.get(name)
        if column is not None and not column.volatile:
            yield column


_COLUMNS: Final = {
    name: {
        column.field.name: column
        for column in table.columns.values()
        if column.field is not None and not column.derived
    }
    for name, table in TABLES.items()
}
"""Of a table: field to column, of those that are stored."""


def _shown(column: Column, change: RowCreated | RowModified) -> str:
    """What XML cannot hold is replaced, as in a dump: the original ends its reading there."""
    field = column.field
    if field is None:
        return change.ref
    if column.derived:
        return "()"
    value = change.fields.get(field.name)
    return text.holdable(values.to_text(field.type, field.initial() if value is None else value))


def to_change(delta: Delta) -> RowChange | None:
    """None for what nobody knows here, or no longer: tables and columns of other versions. Raises `Malformed`."""
    table = TABLES.get(delta.table)
    if table is None or not table.persistent:
        return None
    match delta:
        case DeleteRow():
            return RowDeleted(cls=delta.table, ref=delta.ref)
        case CreateRow():
            fields: dict[str, Any] = {}
            for name, shown in delta.columns:
                column = table.columns.get(name)
                if column is not None and column.read:
                    _set(fields, column, shown)
            for column in table.columns.values():
                if column.volatile and column.field is not None:
                    fields[column.field.name] = column.field.type.empty()
            return RowCreated(cls=delta.table, ref=delta.ref, fields=fields)
        case WriteField():
            column = table.columns.get(delta.column)
            if column is None or not column.read:
                return None
            fields = {}
            _set(fields, column, delta.value)
            return RowModified(cls=delta.table, ref=delta.ref, fields=fields)


def _set(fields: dict[str, Any], column: Column, shown: str) -> None:
    field = column.field
    if field is None:
        return
    if field.type is DATETIME and not shown:
        fields[field.name] = EPOCH
        return
    try:
        fields[field.name] = values.from_text(field.type, shown)
    except ApiError as error:
        raise Malformed(f"column {column.name}: {error.params[0] if error.params else error}") from None


def to_changes(deltas: Sequence[Delta]) -> list[RowChange]:
    """Fields of one row that were written one after the other are one change. Raises `Malformed`."""
    changes: list[RowChange] = []
    for delta in deltas:
        change = to_change(delta)
        if change is None:
            continue
        last = changes[-1] if changes else None
        if (
            isinstance(change, RowModified)
            and isinstance(last, RowModified)
            and (last.cls, last.ref) == (change.cls, change.ref)
        ):
            changes[-1] = RowModified(cls=last.cls, ref=last.ref, fields={**last.fields, **change.fields})
        else:
            changes.append(change)
    return changes
