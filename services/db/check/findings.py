"""What a check of a database finds, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """`DAMAGE`: no sound database has it. `NOTE`: legal, such as a reference to a row that was removed."""

    DAMAGE = "damage"
    NOTE = "note"


class Kind(StrEnum):
    UNKNOWN_CLASS = "unknown_class"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_WORD = "unknown_word"
    """Of an enum: newer programs know more of them."""
    UNSTORABLE_TEXT = "unstorable_text"
    """Text that no XML document can hold."""
    NO_REFERENCE = "no_reference"
    SHARED_REFERENCE = "shared_reference"
    NO_UUID = "no_uuid"
    SHARED_UUID = "shared_uuid"
    DANGLING = "dangling"
    WRONG_CLASS = "wrong_class"
    """A reference to a row of another class."""
    ONE_SIDED = "one_sided"
    """A many-to-many relation whose ends disagree."""
    WRONG_LIST = "wrong_list"
    """A derived list that is not what the stored references give."""
    WRONG_GENERATION = "wrong_generation"
    POOL = "pool"
    WRONG_INDEX = "wrong_index"
    UNREADABLE = "unreadable"
    """The rows cannot be loaded; the other findings say why, or nothing does."""


# ---- repairs


@dataclass(frozen=True, slots=True)
class SetField:
    value: Any


@dataclass(frozen=True, slots=True)
class DropField:
    """What is no field of the class."""


@dataclass(frozen=True, slots=True)
class DropRow:
    """The row counts for nobody: its class is unknown, or it is the second copy of another."""


@dataclass(frozen=True, slots=True)
class Stamp:
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Loading the rows anew gives the right list or index: nothing stored is wrong."""


Repair = SetField | DropField | DropRow | Stamp | Rebuild


@dataclass(frozen=True, slots=True)
class Finding:
    """`field`: "" when the whole row is meant; `ref` and `cls` too when it is the whole database.

    `repair`: None when there is no right answer, or more than one.
    """

    kind: Kind
    cls: str
    ref: str
    field: str
    what: str
    repair: Repair | None = None
    severity: Severity = Severity.DAMAGE


def damage(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.severity is Severity.DAMAGE]
