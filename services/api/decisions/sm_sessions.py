"""Storage plug-ins change records of their own SR, with a session that names it; nobody else may (storage 2)."""

from __future__ import annotations

from services.api.decisions.rows import Rows
from shared.contracts.storage import SM_MAKES_FOR, SM_SESSION
from shared.errors import ApiError


def is_own(rows: Rows, session: str, sr: str) -> bool:
    """Whether it is the SR's plug-in that calls: it is not to be asked in turn, since it waits for the answer."""
    row = rows.row("session", session)
    return row is not None and row["other_config"].get(SM_SESSION) == sr


def makes_for(rows: Rows, session: str) -> str:
    """A task; "" when it makes no disk."""
    row = rows.row("session", session)
    return str(row["other_config"].get(SM_MAKES_FOR, "")) if row is not None else ""


def require_own(rows: Rows, session: str, sr: str) -> None:
    """Raises PERMISSION_DENIED."""
    if not is_own(rows, session, sr):
        raise ApiError("PERMISSION_DENIED", "only the storage plug-in of the SR may do this")
