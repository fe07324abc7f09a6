"""Whether a host can be asked."""

from __future__ import annotations

from services.api.decisions.rows import Rows
from shared.errors import ApiError


def is_live(rows: Rows, host: str) -> bool:
    row = rows.row("host", host)
    metrics = rows.row("host_metrics", row["metrics"]) if row is not None else None
    return metrics is not None and bool(metrics["live"])


def require_live(rows: Rows, host: str) -> None:
    """For what a host answers by itself. Raises HOST_OFFLINE [host], for an unknown host too (`wire-protocol` 8.3)."""
    if not is_live(rows, host):
        raise ApiError("HOST_OFFLINE", host)
