"""The tables and columns of a dump, in the order in which they stand there (`database-pool-ha` 1.4, 1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.datamodel import model
from shared.datamodel.schema import Class, Field
from shared.store import LINKS

SCHEMA_VERSION: Final = (5, 909)
"""Major and minor number of the columns that the data model has now. Only equal ones can be restored."""

REF: Final = "_ref"
"""The column that repeats the row's reference."""


@dataclass(frozen=True, slots=True)
class Column:
    """`field`: None for the row's own reference.

    `derived`: a list that follows from references of other rows: written for whoever reads it, never read.
    `volatile`: empty after a load, whatever it held. `removed`: there in old databases; its content is dropped.
    """

    name: str
    field: Field | None
    derived: bool = False
    volatile: bool = False
    removed: bool = False

    @property
    def read(self) -> bool:
        """Whether a load takes its values."""
        return self.field is not None and not (self.derived or self.volatile or self.removed)


@dataclass(frozen=True, slots=True)
class Table:
    """`columns`: by name, in the order of their bytes: capitals, `_ref`, small letters. `persistent`: has rows."""

    name: str
    cls: Class
    persistent: bool
    columns: dict[str, Column]


def _column(field: Field, derived: bool) -> Column:
    volatile = not derived and not field.persist
    return Column(field.column, field, derived, volatile, field.lifecycle.removed)


def _table(cls: Class) -> Table:
    derived = LINKS[cls.name].derived
    columns = [_column(field, field.name in derived) for field in cls.fields.values()]
    columns.append(Column(REF, None))
    in_order = sorted(columns, key=lambda column: column.name.encode())
    return Table(cls.name, cls, cls.persist and cls.in_database, {column.name: column for column in in_order})


TABLES: Final = {
    name: _table(model.classes[name]) for name in sorted(model.classes, key=str.encode) if model.classes[name].fields
}
"""Every class that has fields, also those that are never in a database."""
