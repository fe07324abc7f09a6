"""How decisions read the pool: rows as maps from wire field name to plain value, derived fields (`VM.VBDs`) too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from shared.errors import ApiError

NULL: Final = "OpaqueRef:NULL"

Record = Mapping[str, Any]


class Rows(Protocol):
    """A consistent view of all rows. References and datetimes are text, sets are lists; see `is_null`."""

    def row(self, cls: str, ref: str) -> Record | None: ...

    def rows(self, cls: str) -> Mapping[str, Record]: ...

    def get(self, cls: str, ref: str, field: str) -> Any:
        """Raises HANDLE_INVALID [cls, ref]."""
        ...


class TableRows:
    """`Rows` over plain dictionaries: class, then reference, then field."""

    def __init__(self, tables: Mapping[str, Mapping[str, Record]]) -> None:
        self._tables = tables

    def row(self, cls: str, ref: str) -> Record | None:
        return self._tables.get(cls, {}).get(ref)

    def rows(self, cls: str) -> Mapping[str, Record]:
        return self._tables.get(cls, {})

    def get(self, cls: str, ref: str, field: str) -> Any:
        return existing(self, cls, ref)[field]


def is_null(ref: str) -> bool:
    return ref in ("", NULL)


def existing(rows: Rows, cls: str, ref: str) -> Record:
    """The row. Raises HANDLE_INVALID [cls, ref]."""
    row = rows.row(cls, ref)
    if row is None:
        raise ApiError("HANDLE_INVALID", cls, ref)
    return row


def the_pool(rows: Rows) -> Record | None:
    """The one row of class pool; None before the pool has been set up."""
    return next(iter(rows.rows("pool").values()), None)


def busy(cls: str, ref: str, operation: str, task: str) -> ApiError:
    """OTHER_OPERATION_IN_PROGRESS: the one refusal that is worth waiting for (vm-lifecycle 1.1)."""
    return ApiError("OTHER_OPERATION_IN_PROGRESS", cls, ref, operation, task)


def is_true(value: str | None) -> bool:
    """How switches in `platform`, `sm_config` and `other_config` are written."""
    return value is not None and value.lower() in ("true", "1")
