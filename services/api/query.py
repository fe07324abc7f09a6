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
from functools import lru_cache
from typing import Any

from shared.datamodel import model, values
from shared.errors import ApiError

Predicate = Callable[[str, Mapping[str, Any]], bool]
"""Gets a row's reference and fields."""

_Value = Callable[[str, Mapping[str, Any]], str]

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


def compile(cls: str, expression: str) -> Predicate:
    """Raises INVALID_VALUE [expression, reason]; what it returns raises INTERNAL_ERROR for an unknown field."""
    return _compile(cls, expression)


@lru_cache(maxsize=_KEEP)
def _compile(cls: str, expression: str) -> Predicate:
    try:
        tokens = _tokenise(expression)
        predicate = _expression(cls, tokens)
        if tokens.peek() != "end":
            raise _SyntaxError(f"unexpected {tokens.peek()}")
    except (_SyntaxError, RecursionError) as error:
        raise ApiError("INVALID_VALUE", expression, f"Query.Error: {error or 'too deeply nested'}") from None
    return predicate


def _expression(cls: str, tokens: _Tokens) -> Predicate:
    left = _operand(cls, tokens)
    while tokens.peek() in ("and", "or"):
        word, _ = tokens.next()
        right = _operand(cls, tokens)
        left = _both(left, right) if word == "and" else _either(left, right)
    return left


def _operand(cls: str, tokens: _Tokens) -> Predicate:
    word = tokens.peek()
    if word == "not":
        tokens.next()
        inner = _expression(cls, tokens)
        return lambda ref, row: not inner(ref, row)
    if word in ("true", "false"):
        tokens.next()
        answer = word == "true"
        return lambda ref, row: answer
    if word == "(":
        tokens.next()
        inner = _expression(cls, tokens)
        if tokens.next()[0] != ")":
            raise _SyntaxError("missing )")
        return inner
    left = _value(cls, tokens)
    if tokens.next()[0] != "=":
        raise _SyntaxError("expected =")
    right = _value(cls, tokens)
    return lambda ref, row: left(ref, row) == right(ref, row)


def _both(left: Predicate, right: Predicate) -> Predicate:
    return lambda ref, row: left(ref, row) and right(ref, row)


def _either(left: Predicate, right: Predicate) -> Predicate:
    return lambda ref, row: left(ref, row) or right(ref, row)


def _value(cls: str, tokens: _Tokens) -> _Value:
    word, text = tokens.next()
    if word == "text":
        return lambda ref, row: text
    if word != "field":
        raise _SyntaxError(f"unexpected {word}")
    word, column = tokens.next()
    if word != "text":
        raise _SyntaxError("field needs a name")
    return _column(cls, column)


def _column(cls: str, column: str) -> _Value:
    if column == "_ref":
        return lambda ref, row: ref
    for name, field in model.classes[cls].fields.items():
        if field.column == column:
            type_ = field.type
            return lambda ref, row: values.to_text(type_, row[name])

    def missing(ref: str, row: Mapping[str, Any]) -> str:
        raise ApiError("INTERNAL_ERROR", "missing field", column, "")

    return missing
