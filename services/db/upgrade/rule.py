"""A rule: for which schemas, and which changes follow from the rows. It looks, and touches nothing."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from shared.contracts.db import Change
from shared.store import Store


class Schema(NamedTuple):
    """Version of the columns that a database was written with."""

    major: int
    minor: int


GEORGE: Final = Schema(5, 57)
COWLEY: Final = Schema(5, 61)
BOSTON: Final = Schema(5, 63)
TAMPA: Final = Schema(5, 66)
CLEARWATER: Final = Schema(5, 67)
CREEDENCE: Final = Schema(5, 72)
CREAM: Final = Schema(5, 73)
DUNDEE_PREVIEW: Final = Schema(5, 91)
DUNDEE: Final = Schema(5, 93)
FALCON: Final = Schema(5, 120)
JURA: Final = Schema(5, 134)
NILE: Final = Schema(5, 775)


@dataclass(frozen=True, slots=True)
class Bound:
    """The newest schemas that a rule is for: before `schema`, or that one too; None: all."""

    schema: Schema | None = None
    inclusive: bool = False

    def covers(self, schema: Schema) -> bool:
        if self.schema is None:
            return True
        return schema <= self.schema if self.inclusive else schema < self.schema


ALWAYS: Final = Bound()


def before(schema: Schema) -> Bound:
    return Bound(schema)


def through(schema: Schema) -> Bound:
    return Bound(schema, inclusive=True)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What some rules look at beside the rows. `certificates`: folder of the pool's trusted certificates."""

    certificates: Path | None = None


class RuleError(Exception):
    """The rule cannot be applied to these rows; the text says why."""


Changes = Callable[[Store, Surroundings], Iterable[Change]]


@dataclass(frozen=True, slots=True)
class Rule:
    """`what`: it does, for the log."""

    what: str
    bound: Bound
    changes: Changes


def new_ref() -> str:
    return f"OpaqueRef:{uuids.uuid4()}"
