"""The query language of `get_all_records_where` (`wire-protocol` 4.3).

    expr  := value '=' value | expr 'and' expr | expr 'or' expr | 'not' expr | 'true' | 'false' | '(' expr ')'
    value := "literal" | field "name"

`and` and `or` have one precedence and associate to the left; `not` takes all that follows. Fields are database columns
(`name__label`, `_ref`); comparison is equality of stored text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
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
_LONG: Final = 4096
"""Characters of an expression that is too long to be kept: a compiled one takes a hundred times its text."""
_MUCH: Final = 200_000
"""Comparisons that take some ten milliseconds."""
_DEEPEST: Final = 200
"""Parentheses and `not`s inside each other."""


class _SyntaxError(Exception):
    """The expression is none; the text says where."""


@dataclass(slots=True)
class _Tokens:
    """("text", literal) or (word, "")."""

    items: list[tuple[str, str]]
    position: int = 0
    depth: int = 0

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

    `keys`: (column, literal) of fields that have an index and are equal in all rows it selects. `comparisons`: at most,
    for one row.
    """

    selects: Predicate
    keys: tuple[tuple[str, str], ...] = ()
    known: bool = True
    comparisons: int = 1


def compile(cls: str, expression: str) -> Query:
    """Raises INVALID_VALUE [expression, reason]."""
    return (_compile if len(expression) < _LONG else _compile.__wrapped__)(cls, expression)


def matching(store: Store, cls: str, expression: str) -> dict[str, Row] | Coroutine[Any, Any, dict[str, Row]]:
    """The rows that it selects, found by an index where one helps; a coroutine when that is more work than others
    should wait for. Raises as `compile` and what that gives.
    """
    found = compile(cls, expression)
    rows = store.tables[cls].rows
    if found.keys and found.known:
        rows = {ref: rows[ref] for ref in _candidates(store, cls, *found.keys[0])}
    selects = found.selects
    if found.comparisons * len(rows) > _MUCH:
        return _in_turns(found, [(ref, row, row.fields) for ref, row in rows.items()])
    return {ref: row for ref, row in rows.items() if selects(ref, row.fields)}


async def _in_turns(query: Query, rows: list[tuple[str, Row, dict[str, Any]]]) -> dict[str, Row]:
    """Selects by what the fields were when the call came."""
    found = {}
    at_once = max(1, _MUCH // 10 // query.comparisons)
    for start in range(0, len(rows), at_once):
        found.update({ref: row for ref, row, fields in rows[start : start + at_once] if query.selects(ref, fields)})
        await asyncio.sleep(0)
    return found


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
    except _SyntaxError as error:
        raise ApiError("INVALID_VALUE", expression, f"Query.Error: {error}") from None
    return query


def _expression(cls: str, tokens: _Tokens) -> Query:
    tokens.depth += 1
    if tokens.depth > _DEEPEST:
        raise _SyntaxError("too deeply nested")
    first = _operand(cls, tokens)
    rest: list[tuple[bool, Query]] = []
    while (word := tokens.peek()) in ("and", "or"):
        tokens.next()
        rest.append((word == "and", _operand(cls, tokens)))
    tokens.depth -= 1
    return _chain(first, rest) if rest else first


def _operand(cls: str, tokens: _Tokens) -> Query:
    word = tokens.peek()
    if word == "not":
        tokens.next()
        inner = _expression(cls, tokens)
        selects = inner.selects
        return Query(lambda ref, row: not selects(ref, row), (), inner.known, inner.comparisons)
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


def _chain(first: Query, rest: list[tuple[bool, Query]]) -> Query:
    """From left to right; each of `rest` with whether it follows an `and`, and looked at only where it can matter."""
    start, steps = first.selects, [(conjunction, query.selects) for conjunction, query in rest]

    def selects(ref: str, row: Mapping[str, Any]) -> bool:
        found = start(ref, row)
        for conjunction, test in steps:
            if found is conjunction:
                found = test(ref, row)
        return found

    # What stands before an `or` need not hold, so only what follows the last one has keys that all rows have.
    last = max((number for number, (conjunction, _) in enumerate(rest, 1) if not conjunction), default=0)
    whole = [first, *(query for _, query in rest)]
    held = whole[last + 1 :] if last else whole
    keys = sorted((key for query in held for key in query.keys), key=lambda key: INDEXED.index(key[0]))
    return Query(selects, tuple(keys), all(query.known for query in whole), sum(query.comparisons for query in whole))


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
