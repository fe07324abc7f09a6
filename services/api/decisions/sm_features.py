"""What an SR's type can do: the features its driver declares (class SM)."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Record, Rows
from shared.errors import ApiError

_V2: Final = (2, 0)


def driver(rows: Rows, sr: Record) -> Record | None:
    """The row of the SR's driver; None when none is known."""
    return next((row for row in rows.rows("SM").values() if row["type"] == sr["type"]), None)


def features(rows: Rows, sr: Record) -> dict[str, int]:
    """Feature name to its version; none when no driver of the SR's type is known."""
    row = driver(rows, sr)
    found: dict[str, int] = row["features"] if row is not None else {}
    return found


def is_v1(rows: Rows, sr: Record) -> bool:
    """Whether a SMAPIv1 driver works for the SR: it writes rows of disks itself."""
    row = driver(rows, sr)
    return row is not None and _version(row["required_api_version"]) < _V2


def _version(text: str) -> tuple[int, ...]:
    """Nobody knows what a version is that is no numbers: not an old one."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else _V2


def lacks(rows: Rows, sr_ref: str, sr: Record, feature: str | None) -> ApiError | None:
    """SR_OPERATION_NOT_SUPPORTED [sr], unless nothing special is needed."""
    if feature is None or feature in features(rows, sr):
        return None
    return ApiError("SR_OPERATION_NOT_SUPPORTED", sr_ref)


def plugged_pbds(rows: Rows, sr: Record) -> list[Record]:
    pbds = (rows.row("PBD", ref) for ref in sr["PBDs"])
    return [pbd for pbd in pbds if pbd is not None and pbd["currently_attached"]]
