"""Plain values of the model's types: checking what came from outside, and the text that the database keeps.

Plain values are text, int, float, bool, datetimes as `YYYYMMDDThh:mm:ssZ`, references as text, sets as lists, maps and
records as dicts with text keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

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
    Scalar,
    SetType,
    Type,
)
from shared.errors import ApiError, internal_error

_INT64 = range(-(2**63), 2**63)
_INT = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|[0-9]+)", re.ASCII)
_FLOAT = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|nan|inf(?:inity)?)", re.I
)
_DATETIME = re.compile(
    r"([0-9]{4})(?:([0-9]{2})([0-9]{2})|-([0-9]{2})-([0-9]{2}))[T ]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(\.[0-9]+)?(?:Z|([+-])([0-9]{2}):?([0-9]{2}))?",
    re.ASCII,
)
_CANONICAL_DATETIME = re.compile(r"[0-9]{8}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)


# ---- checking


def check(type: Type, value: Any) -> Any:
    """The value in its plain form: enums in canonical case, numbers read from text, datetimes in UTC.

    Containers come back as copies. Raises INTERNAL_ERROR for a value of another type, or a word the enum does not have.
    The members of a record are not looked at: its class decides what they mean.
    """
    if isinstance(type, Scalar):
        return _SCALARS[type](value)
    match type:
        case EnumType():
            return _check_enum(type, value)
        case RefType():
            return _check_text(value, "ref")
        case SetType():
            if not isinstance(value, list | tuple):
                raise _unexpected("set", value)
            return [check(type.of, item) for item in value]
        case MapType():
            if not isinstance(value, dict):
                raise _unexpected("map", value)
            return {_key(type.key, key): check(type.value, item) for key, item in value.items()}
        case RecordType():
            if not isinstance(value, dict):
                raise _unexpected("record", value)
            return dict(value)
        case OptionType():
            return None if value is None else check(type.of, value)
    raise TypeError(f"not a type of the model: {type!r}")


def _unexpected(wanted: str, value: Any) -> ApiError:
    """INTERNAL_ERROR in the original's words: `Failure("Expected bool, got 'S(true)'")`."""
    return internal_error(f"Failure(\"Expected {wanted}, got '{_shown(value)}'\")")


def _shown(value: Any) -> str:
    match value:
        case str():
            return f"S({value})"
        case bool():
            return f"B({str(value).lower()})"
        case int():
            return f"I({value})"
        case float():
            return f"F({value:g})"
        case list() | tuple():
            return f"[{';'.join(_shown(item) for item in value)}]"
        case dict():
            return "{" + ";".join(f"{key}:{_shown(item)}" for key, item in value.items()) + "}"
    return "N"


def _check_text(value: Any, wanted: str = "string") -> str:
    if isinstance(value, str):
        return value
    raise _unexpected(wanted, value)


def _check_int(value: Any) -> int:
    number = value
    if isinstance(value, str) and _INT.fullmatch(value):
        # Plain decimal may have leading zeros, which base 0 does not read.
        number = int(value, 10) if value.lstrip("+-").isdigit() else int(value, 0)
    if isinstance(number, bool) or not isinstance(number, int) or number not in _INT64:
        raise _unexpected("int", value)
    return number


def _check_float(value: Any) -> float:
    if isinstance(value, str) and _FLOAT.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unexpected("float", value)
    return float(value)


def _check_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _unexpected("bool", value)


def _check_void(value: Any) -> str:
    if value is None or value == "":
        return ""
    raise _unexpected("void", value)


def _check_datetime(value: Any) -> str:
    """In UTC, whole seconds. A missing zone is UTC; fractions are allowed in the extended form only, and dropped."""
    found = _DATETIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _unexpected("datetime", value)
    year, month, day, dashed_month, dashed_day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = (
        found.groups()
    )
    if fraction and month:
        raise _unexpected("datetime", value)
    try:
        zone = UTC if sign is None else _offset(sign, zone_hours, zone_minutes)
        time = datetime(
            int(year),
            int(month or dashed_month),
            int(day or dashed_day),
            int(hour),
            int(minute),
            int(second),
            tzinfo=zone,
        ).astimezone(UTC)
    except (ValueError, OverflowError) as e:
        raise _unexpected("datetime", value) from e
    # strftime does not pad years before 1000.
    return f"{time.year:04}{time:%m%dT%H:%M:%SZ}"


def _offset(sign: str, hours: str, minutes: str) -> timezone:
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(offset if sign == "+" else -offset)


def _check_enum(type: EnumType, value: Any) -> str:
    text = _check_text(value)
    if text in type.values:
        return text
    if not type.exact:
        lower = text.lower()
        for word in type.values:
            if word.lower() == lower:
                return word
    raise internal_error('Failure("Unknown tag/contents")')


def _key(type: Type, key: Any) -> str:
    if type is STRING or isinstance(type, RefType):
        return _check_text(key)
    return to_text(type, check(type, key))


_SCALARS: dict[Scalar, Callable[[Any], Any]] = {
    STRING: _check_text,
    INT: _check_int,
    FLOAT: _check_float,
    BOOL: _check_bool,
    DATETIME: _check_datetime,
    VOID: _check_void,
}


# ---- the database's text


def to_text(type: Type, value: Any) -> str:
    """A plain value as the database writes it: sets as `('a' 'b')`, maps as `(('k' 'v'))`, floats with 18 digits."""
    match type:
        case SetType():
            return f"({' '.join(_quoted(to_text(type.of, item)) for item in value)})"
        case MapType():
            pairs = (f"({_quoted(key)} {_quoted(to_text(type.value, item))})" for key, item in value.items())
            return f"({' '.join(pairs)})"
        case RecordType() | OptionType():
            raise TypeError(f"the database keeps no {type}")
    if type is BOOL:
        return "true" if value else "false"
    if type is FLOAT:
        return f"{value:.18g}"
    return str(value)


def from_text(type: Type, text: str) -> Any:
    """The plain value that a database's text stands for. Raises INTERNAL_ERROR when it stands for none.

    White space and comments (`;` to the end of the line) between the atoms of sets and maps are skipped, and atoms may
    be in double quotes: other writers do so. Enum words are taken as they are, since newer writers know more of them.
    """
    match type:
        case SetType():
            return [from_text(type.of, atom) for atom in _atoms(text)]
        case MapType():
            return {key: from_text(type.value, item) for key, item in _pairs(text)}
        case RecordType() | OptionType():
            raise TypeError(f"the database keeps no {type}")
    if type is BOOL:
        if text in ("true", "false"):
            return text == "true"
        raise _unexpected("bool", text)
    if type in (INT, FLOAT, DATETIME):
        return check(type, text)
    return text


def _quoted(text: str) -> str:
    if "\\" in text or "'" in text:
        text = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


_TOKEN = re.compile(
    r"""[ \t\r\n]+ | ;[^\n]* | (?P<paren>[()])
    | '(?P<single>[^'\\]*(?:\\.[^'\\]*)*)' | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)" """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _tokens(text: str) -> Iterator[tuple[bool, str]]:
    """(is an atom, its text or the parenthesis). Bare symbols, which no set or map holds, are refused."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _malformed(text)
        at = found.end()
        match found.lastgroup:
            case "paren":
                yield False, found[0]
            case "single" | "double" as group:
                atom = found[group]
                yield True, _ESCAPED.sub(r"\1", atom) if "\\" in atom else atom


def _malformed(text: str) -> ApiError:
    return internal_error(f"not a set or map as the database writes it: {text}")


def _as_written(text: str, first: str, between: tuple[str, ...], last: str) -> list[str] | None:
    """The atoms of text that is exactly as `to_text` writes it, none of them escaped; None: it has to be looked at."""
    if "\\" in text:
        return None
    parts = text.split("'")
    kinds = len(between)
    if parts[0] != first or parts[-1] != last or len(parts) % (2 * kinds) != 1:
        return None
    for number, wanted in enumerate(between, 1):
        if any(part != wanted for part in parts[2 * number : -1 : 2 * kinds]):
            return None
    return parts[1::2]


def _atoms(text: str) -> list[str]:
    if text == "()":
        return []
    atoms = _as_written(text, "(", (" ",), ")")
    if atoms is not None:
        return atoms
    tokens = list(_tokens(text))
    inside = tokens[1:-1]
    if len(tokens) < 2 or tokens[0] != (False, "(") or tokens[-1] != (False, ")") or not all(a for a, _ in inside):
        raise _malformed(text)
    return [atom for _, atom in inside]


def _pairs(text: str) -> list[tuple[str, str]]:
    if text == "()":
        return []
    atoms = _as_written(text, "((", (" ", ") ("), "))")
    if atoms is not None:
        return list(zip(atoms[::2], atoms[1::2], strict=True))
    tokens = list(_tokens(text))
    inside = tokens[1:-1]
    pairs = [inside[i : i + 4] for i in range(0, len(inside), 4)]
    well_formed = len(tokens) >= 2 and tokens[0] == (False, "(") and tokens[-1] == (False, ")")
    if not well_formed or not all(_is_pair(pair) for pair in pairs):
        raise _malformed(text)
    return [(pair[1][1], pair[2][1]) for pair in pairs]


def _is_pair(tokens: list[tuple[bool, str]]) -> bool:
    return [atom or token for atom, token in tokens] == ["(", True, True, ")"]
