"""Types of fields, parameters and results. `str(type)` is the XenAPI spelling: `VM ref set`, `(string -> int) map`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

NULL_REF: Final = "OpaqueRef:NULL"
EPOCH: Final = "19700101T00:00:00Z"


class Type:
    """A type of the model. Values are plain: text, int, float, bool, list (set), dict with text keys (map, record)."""

    __slots__ = ()

    def empty(self) -> Any:
        """A fresh value that stands for "nothing there"."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Scalar(Type):
    """One of the constants below."""

    name: str
    zero: Any

    def empty(self) -> Any:
        return self.zero

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class EnumType(Type):
    """One of some words, in canonical case. `exact`: input must match the case; otherwise case is ignored."""

    name: str
    values: tuple[str, ...]
    exact: bool = False

    def empty(self) -> str:
        """The first word: an enum has no empty value, and this is what a field that lost its value falls back to."""
        return self.values[0]

    def __str__(self) -> str:
        return f"enum {self.name}"


@dataclass(frozen=True, slots=True)
class RefType(Type):
    """The opaque reference of a row of `cls`; any text is accepted, dangling ones are legal."""

    cls: str

    def empty(self) -> str:
        return NULL_REF

    def __str__(self) -> str:
        return f"{self.cls} ref"


@dataclass(frozen=True, slots=True)
class SetType(Type):
    """A list without order or duplicates, as far as clients are concerned."""

    of: Type

    def empty(self) -> list[Any]:
        return []

    def __str__(self) -> str:
        return f"{self.of} set"


@dataclass(frozen=True, slots=True)
class MapType(Type):
    key: Type
    value: Type

    def empty(self) -> dict[str, Any]:
        return {}

    def __str__(self) -> str:
        return f"({self.key} -> {self.value}) map"


@dataclass(frozen=True, slots=True)
class RecordType(Type):
    """All client-visible fields of a row of `cls`, by wire name."""

    cls: str

    def empty(self) -> dict[str, Any]:
        return {}

    def __str__(self) -> str:
        return f"{self.cls} record"


@dataclass(frozen=True, slots=True)
class OptionType(Type):
    """A value that may be missing (None); on the wire the field is then left out."""

    of: Type

    def empty(self) -> None:
        return None

    def __str__(self) -> str:
        return f"{self.of} option"


STRING: Final = Scalar("string", "")
INT: Final = Scalar("int", 0)
FLOAT: Final = Scalar("float", 0.0)
BOOL: Final = Scalar("bool", False)
DATETIME: Final = Scalar("datetime", EPOCH)
VOID: Final = Scalar("void", "")

STRING_SET: Final = SetType(STRING)
STRING_MAP: Final = MapType(STRING, STRING)
