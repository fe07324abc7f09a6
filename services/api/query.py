"""The query language of `get_all_records_where` (`wire-protocol` 4.3).

    expr  := value '=' value | expr 'and' expr | expr 'or' expr | 'not' expr | 'true' | 'false' | '(' expr ')'
    value := "literal" | field "name"

`and` and `or` have one precedence and associate to the left; `not` takes all that follows. Fields are database columns
(`name__label`, `_ref`); comparison is equality of stored text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from shared.datamodel import model, values
from shared.datamodel.schema import Field
from shared.datamodel.types import BOOL, DATETIME, STRING, EnumType, RefType
from shared.errors import ApiError
from shared.store import Row, Store

Predicate = Callable[[str, Mapping[str, Any]], bool]
"""Gets a row's reference and fields."""

_TOKEN = re.compile(r'[ \t\n]*(?:"([^"]*)"|(field|and|or|not|true|false)|([()=]))')
_KEEP = 512


class _SyntaxError(Exception):
    """The expression is none; the text says where."""


@dataclass(slots=True)
class _Tokens:
    """("text", literal) or (word, "")."""

    items: list[tuple[str, str]]
    position: int = 0

    def peek(self) -> str:
        return self.items[self.position][0] if self.position < len(self.items) else "end"

    def next(self) -> tuple[str, str]:
        if self.position >= len(self.items):
            raise _SyntaxError("unexpected end")
        self.position += 1
        return self.items[self.position - 1]


def _tokenise(expression: str) -> _Tokens:
    items: list[tuple[str, str]] = []
    position = 0
    end = len(expression.rstrip(" \t\n"))
    while position < end:
        match = _TOKEN.match(expression, position)
        if match is None:
            raise _SyntaxError(f"unexpected text at {position}")
        literal, word, sign = match.groups()
        items.append(("text", literal) if literal is not None else (word or sign, ""))
        position = match.end()
    return _Tokens(items)


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled expression. `selects` raises INTERNAL_ERROR for an unknown field; `known`: it names none.

    `keys`: (column, literal) of fields that have an index and are equal in all rows it selects.
    """

    selects: Predicate
    keys: tuple[tuple[str, str], ...] = ()
    known: bool = True


def compile(cls: str, expression: str) -> Query:
    """Raises INVALID_VALUE [expression, reason]."""
    return _compile(cls, expression)


def matching(store: Store, cls: str, expression: str) -> dict[str, Row]:
    """The rows that it selects, found by an index where one helps. Raises as `compile` and what that gives."""
    found = compile(cls, expression)
    rows = store.tables[cls].rows
    if found.keys and found.known:
        rows = {ref: rows[ref] for ref in _candidates(store, cls, *found.keys[0])}
    selects = found.selects
    return {ref: row for ref, row in rows.items() if selects(ref, row.fields)}


def _candidates(store: Store, cls: str, column: str, text: str) -> list[str]:
    match column:
        case "_ref":
            return [text] if text in store.tables[cls].rows else []
        case "uuid":
            ref = store.ref_of_uuid(cls, text)
            return [] if ref is None else [ref]
    return store.by_name_label(cls, text)


INDEXED: Final = ("_ref", "uuid", "name__label")
"""Columns by which the store finds rows, the best first."""


@lru_cache(maxsize=_KEEP)
def _compile(cls: str, expression: str) -> Query:
    try:
        tokens = _tokenise(expression)
        query = _expression(cls, tokens)
        if tokens.peek() != "end":
            raise _SyntaxError(f"unexpected {tokens.peek()}")
    except (_SyntaxError, RecursionError) as error:
        raise ApiError("INVALID_VALUE", expression, f"Query.Error: {error or 'too deeply nested'}") from None
    return query


def _expression(cls: str, tokens: _Tokens) -> Query:
    left = _operand(cls, tokens)
    while tokens.peek() in ("and", "or"):
        word, _ = tokens.next()
        right = _operand(cls, tokens)
        left = _both(left, right) if word == "and" else _either(left, right)
    return left


def _operand(cls: str, tokens: _Tokens) -> Query:
    word = tokens.peek()
    if word == "not":
        tokens.next()
        inner = _expression(cls, tokens)
        selects = inner.selects
        return Query(lambda ref, row: not selects(ref, row), (), inner.known)
    if word in ("true", "false"):
        tokens.next()
        answer = word == "true"
        return Query(lambda ref, row: answer)
    if word == "(":
        tokens.next()
        inner = _expression(cls, tokens)
        if tokens.next()[0] != ")":
            raise _SyntaxError("missing )")
        return inner
    left = _value(cls, tokens)
    if tokens.next()[0] != "=":
        raise _SyntaxError("expected =")
    return _equal(cls, left, _value(cls, tokens))


def _both(left: Query, right: Query) -> Query:
    first, second = left.selects, right.selects
    keys = sorted((*left.keys, *right.keys), key=lambda key: INDEXED.index(key[0]))
    return Query(lambda ref, row: first(ref, row) and second(ref, row), tuple(keys), left.known and right.known)


def _either(left: Query, right: Query) -> Query:
    first, second = left.selects, right.selects
    return Query(lambda ref, row: first(ref, row) or second(ref, row), (), left.known and right.known)


@dataclass(frozen=True, slots=True)
class _Value:
    """One side of a comparison. `column`: "" for a literal, whose text is `text`. `read`: gives the stored text."""

    read: Callable[[str, Mapping[str, Any]], str]
    column: str = ""
    text: str = ""
    known: bool = True


def _value(cls: str, tokens: _Tokens) -> _Value:
    word, text = tokens.next()
    if word == "text":
        return _Value(lambda ref, row: text, text=text)
    if word != "field":
        raise _SyntaxError(f"unexpected {word}")
    word, column = tokens.next()
    if word != "text":
        raise _SyntaxError("field needs a name")
    return _column(cls, column)


def _column(cls: str, column: str) -> _Value:
    if column == "_ref":
        return _Value(lambda ref, row: ref, column)
    field = _fields(cls).get(column)
    if field is not None:
        name, type_ = field.name, field.type
        return _Value(lambda ref, row: values.to_text(type_, row[name]), column)

    def missing(ref: str, row: Mapping[str, Any]) -> str:
        raise ApiError("INTERNAL_ERROR", "missing field", column, "")

    return _Value(missing, column, known=False)


@cache
def _fields(cls: str) -> dict[str, Field]:
    return {field.column: field for field in model.classes[cls].fields.values()}


def _equal(cls: str, left: _Value, right: _Value) -> Query:
    if left.known and right.known and bool(left.column) != bool(right.column):
        column, text = (left.column, right.text) if left.column else (right.column, left.text)
        keys = ((column, text),) if column in INDEXED and text else ()
        return Query(_test(cls, column, text), keys)
    first, second = left.read, right.read
    return Query(lambda ref, row: first(ref, row) == second(ref, row), (), left.known and right.known)


def _test(cls: str, column: str, text: str) -> Predicate:
    """Whether a field has that stored text; without making text of each row's value where that can be."""
    if column == "_ref":
        return lambda ref, row: ref == text
    field = _fields(cls)[column]
    name, type_ = field.name, field.type
    if type_ == BOOL:
        wanted = {"true": True, "false": False}.get(text)
        return lambda ref, row: row[name] is wanted
    if type_ in (STRING, DATETIME) or isinstance(type_, RefType | EnumType):
        return lambda ref, row: bool(row[name] == text)
    return lambda ref, row: values.to_text(type_, row[name]) == text
