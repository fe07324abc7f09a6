"""Arguments for any message of the model: plausible ones, and ones that no type takes."""

from __future__ import annotations

from typing import Any

from shared.datamodel.schema import Message
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    STRING,
    EnumType,
    MapType,
    OptionType,
    RecordType,
    RefType,
    SetType,
    Type,
)

UNKNOWN = "OpaqueRef:00000000-0000-4000-8000-000000000000"
_PLAIN: dict[Type, Any] = {STRING: "text", INT: 1, FLOAT: 1.0, BOOL: False, DATETIME: "20260101T00:00:00Z"}

WRONG: tuple[Any, ...] = (
    None,
    True,
    1,
    1.5,
    "text",
    "",
    [],
    ["text"],
    [[1]],
    {},
    {"key": "value"},
    {"key": [1]},
    "12a",
    "9" * 5000,
    2**63 - 1,
    -(2**63),
    "\x00\u202e\ufffe",
    "../../etc/passwd",
    "x" * 100_000,
)
"""Some of them are right for some types, and most for none."""


def plausible(type_: Type) -> Any:
    """A value of that type. References are unknown."""
    match type_:
        case RefType():
            return UNKNOWN
        case SetType():
            return []
        case MapType() | RecordType():
            return {}
        case EnumType():
            return type_.values[0]
        case OptionType():
            return plausible(type_.of)
    return _PLAIN[type_]


def arguments(message: Message) -> list[Any]:
    return [plausible(param.type) for param in message.params]


def refs(message: Message) -> set[str]:
    """The classes that the message's parameters refer to."""
    return {param.type.cls for param in message.params if isinstance(param.type, RefType)}
