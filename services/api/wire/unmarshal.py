"""Raw values into values of the declared types, with the tolerance that clients rely on.

`decoder(type)` is compiled once per type. What does not fit is INTERNAL_ERROR with a sentence, as in the original:
clients match on that code, and FIELD_TYPE_ERROR means something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from services.api.wire import dates
from shared.datamodel import model
from shared.datamodel.schema import MISSING, Field
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    STRING,
    VOID,
    EnumType,
    MapType,
    OptionType,
    RecordType,
    RefType,
    SetType,
    Type,
)
from shared.errors import ApiError, internal_error

Decoder = Callable[[Any], Any]

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
_INTEGER = re.compile(r"([+-]?)(?:0([xXoObBuU]))?([0-9a-fA-F][0-9a-fA-F_]*)", re.ASCII)
_BASES = {"x": 16, "o": 8, "b": 2, "u": 10}
_KINDS = {bool: "bool", int: "int", float: "float", str: "string", list: "set", dict: "map", type(None): "nil"}


class DateTime(str):
    """The text of a `<dateTime.iso8601>` element. Accepted as a datetime only, unlike a str, which may be either."""

    __slots__ = ()


def expected(type_: Type | str, value: Any) -> ApiError:
    """INTERNAL_ERROR that says what was wanted and what came, without repeating long values."""
    shown = repr(value)
    kind = _KINDS.get(type(value), "datetime")
    return internal_error(f"Expected {type_}, got {kind} {shown if len(shown) <= 80 else shown[:77] + '...'}")


def integer(text: str) -> int:
    """A 64-bit integer from text. With 0x, 0o, 0b or 0u any 64 bits do, as two's complement. ValueError otherwise."""
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an integer")
    sign, prefix, digits = found.groups()
    if len(digits) > 1000:
        raise ValueError("a number of that many digits does not fit into 64 bits")
    try:
        number = int(digits.replace("_", ""), _BASES[prefix.lower()] if prefix else 10)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer") from None
    if number >= 2**64:
        raise ValueError(f"{text!r} does not fit into 64 bits")
    number = -number if sign == "-" else number
    if prefix:
        return (number + 2**63) % 2**64 - 2**63
    if not INT_MIN <= number <= INT_MAX:
        raise ValueError(f"{text!r} does not fit into 64 bits")
    return number


def _decimal(plain: str, text: str) -> float:
    try:
        return float(plain)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def floating(text: str) -> float:
    """A float from text, `nan` and `inf` included. ValueError for anything with blanks behind it, as the original."""
    plain = text.replace("_", "")
    if not plain or plain[-1].isspace() or not plain.isascii():
        raise ValueError(f"{text!r} is not a number")
    if plain.lstrip(" \t\n+-")[:2].lower() != "0x":
        return _decimal(plain, text)
    try:
        return float.fromhex(plain)
    except OverflowError:
        return float("-inf" if "-" in plain[: plain.lower().index("0x")] else "inf")


def _string(value: Any) -> str:
    if type(value) is str:
        return value
    raise expected(STRING, value)


def _int(value: Any) -> int:
    if type(value) is int and INT_MIN <= value <= INT_MAX:
        return value
    if type(value) is str:
        try:
            return integer(value)
        except ValueError as error:
            raise internal_error(error) from None
    raise expected(INT, value)


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    if type(value) is str:
        try:
            return floating(value)
        except ValueError as error:
            raise internal_error(error) from None
    raise expected(FLOAT, value)


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise expected(BOOL, value)


def _datetime(value: Any) -> str:
    if isinstance(value, str):
        try:
            return dates.canonical(value)
        except ValueError as error:
            raise internal_error(error) from None
    raise expected(DATETIME, value)


_SCALARS: dict[Type, Decoder] = {
    STRING: _string,
    INT: _int,
    FLOAT: _float,
    BOOL: _bool,
    DATETIME: _datetime,
    VOID: _string,
}


@cache
def decoder(type_: Type) -> Decoder:
    """A function from a raw value to a plain value of that type. It raises INTERNAL_ERROR."""
    match type_:
        case RefType():
            return _string
        case EnumType():
            return _enum(type_)
        case SetType():
            return _set(type_)
        case MapType():
            return _map(type_)
        case RecordType():
            return _record(type_)
        case OptionType():
            return decoder(type_.of)
    return _SCALARS[type_]


def _enum(type_: EnumType) -> Decoder:
    words = {word: word for word in type_.values}
    folded = {} if type_.exact else {word.lower(): word for word in type_.values}

    def decode(value: Any) -> str:
        word = words.get(value) if type(value) is str else None
        if word is None and type(value) is str:
            word = folded.get(value.lower())
        if word is None:
            raise expected(type_, value)
        return word

    return decode


def _set(type_: SetType) -> Decoder:
    item = decoder(type_.of)

    def decode(value: Any) -> list[Any]:
        if type(value) is not list:
            raise expected(type_, value)
        return [item(x) for x in value]

    return decode


def _map(type_: MapType) -> Decoder:
    """Keys stay text, as rows hold them, but are checked and brought into canonical form."""
    key, item = decoder(type_.key), decoder(type_.value)

    def decode(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise expected(type_, value)
        return {str(key(k)): item(v) for k, v in value.items()}

    return decode


def _record(type_: RecordType) -> Decoder:
    """For `create`: the constructor's fields, defaults filled in. Unknown members and the server's own are ignored."""
    wanted: Mapping[str, tuple[Field, Decoder]] = {
        field.name: (field, decoder(field.type))
        for field in model.classes[type_.cls].fields.values()
        if field.qualifier != "RO/runtime" and not field.internal_only
    }

    def decode(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise expected(type_, value)
        record: dict[str, Any] = {}
        for name, (field, decode_field) in wanted.items():
            if name in value:
                record[name] = decode_field(value[name])
            elif field.default is MISSING:
                raise internal_error(f"Field {name} not present in {type_}")
            else:
                record[name] = field.initial()
        return record

    return decode
