"""What an SR's type can do: the features its driver declares (class SM)."""

from __future__ import annotations

from services.api.decisions.rows import Record, Rows
from shared.errors import ApiError


def features(rows: Rows, sr: Record) -> dict[str, int]:
    """Feature name to its version; none when no driver of the SR's type is known."""
    for driver in rows.rows("SM").values():
        if driver["type"] == sr["type"]:
            found: dict[str, int] = driver["features"]
            return found
    return {}


def lacks(rows: Rows, sr_ref: str, sr: Record, feature: str | None) -> ApiError | None:
    """SR_OPERATION_NOT_SUPPORTED [sr], unless nothing special is needed."""
    if feature is None or feature in features(rows, sr):
        return None
    return ApiError("SR_OPERATION_NOT_SUPPORTED", sr_ref)


def plugged_pbds(rows: Rows, sr: Record) -> list[Record]:
    pbds = (rows.row("PBD", ref) for ref in sr["PBDs"])
    return [pbd for pbd in pbds if pbd is not None and pbd["currently_attached"]]
