"""References lead to rows of the class that their field names, and those that must lead somewhere do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.db.check.fields import CLASSES
from services.db.check.findings import Finding, Kind, Severity
from shared.contracts.db import SnapshotRow
from shared.datamodel.dependents import DEPENDS_ON, REQUIRED
from shared.datamodel.types import MapType, RefType, SetType, Type
from shared.store import LINKS, NULL


@dataclass(frozen=True, slots=True)
class Reference:
    """A stored field that holds references to rows of `to`. `place`: ref | set | keys | values."""

    field: str
    to: str
    place: str

    def targets(self, value: Any) -> Iterable[str]:
        """Those that are not null; none of a value of another type."""
        found: Iterable[Any] = ()
        if self.place == "ref":
            found = (value,)
        elif self.place == "set":
            found = value if isinstance(value, list) else ()
        elif isinstance(value, dict):
            found = value if self.place == "keys" else value.values()
        return [ref for ref in found if isinstance(ref, str) and ref and ref != NULL]


def _places(type_: Type) -> Iterator[tuple[str, str]]:
    match type_:
        case RefType():
            yield type_.cls, "ref"
        case SetType(of=RefType() as to):
            yield to.cls, "set"
        case MapType():
            for place, part in (("keys", type_.key), ("values", type_.value)):
                if isinstance(part, RefType):
                    yield part.cls, place


REFERENCES: Final[dict[str, tuple[Reference, ...]]] = {
    name: tuple(
        Reference(field.name, to, place)
        for field in cls.fields.values()
        if field.name not in LINKS[name].derived
        for to, place in _places(field.type)
    )
    for name, cls in CLASSES.items()
}
"""Of each class. References to classes without rows (`auth`, `event`) are not looked after."""


def check(rows: Iterable[SnapshotRow], classes: Mapping[str, str]) -> Iterator[Finding]:
    """`classes`: of every reference."""
    for row in rows:
        for reference in REFERENCES.get(row.cls, ()):
            for to in reference.targets(row.fields.get(reference.field)):
                if classes.get(to) != reference.to:
                    yield _finding(row, reference, to, classes.get(to))
            if (row.cls, reference.field) in REQUIRED and row.fields.get(reference.field) in ("", NULL):
                yield Finding(Kind.DANGLING, row.cls, row.ref, reference.field, f"refers to no {reference.to}")


def _finding(row: SnapshotRow, reference: Reference, to: str, actual: str | None) -> Finding:
    if actual is not None:
        what = f"refers to {to}, which is a {actual} and no {reference.to}"
        return Finding(Kind.WRONG_CLASS, row.cls, row.ref, reference.field, what)
    if (row.cls, reference.field) in REQUIRED:
        severity, fate = Severity.DAMAGE, ""
    else:
        severity = Severity.NOTE
        fate = "; the row is garbage" if reference.field in DEPENDS_ON.get(row.cls, ()) else ""
    what = f"refers to {to}, which is gone{fate}"
    return Finding(Kind.DANGLING, row.cls, row.ref, reference.field, what, severity=severity)
