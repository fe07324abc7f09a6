"""Disks that the pool's database is copied to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from services.api.decisions.rows import Record, Rows, existing
from services.api.decisions.sr_everywhere import REDO_LOG_SIZE
from shared.contracts.db import Change, MapDrop, MapPut, Update
from shared.errors import ApiError

METADATA: Final = "metadata"
"""The type of disks that hold databases."""
REPLICATED: Final = "database_replication"
"""Key of a disk's `other_config`: the database is copied to it if this is its own uuid, since its snapshots and clones
get the same map.
"""
MOST: Final = 8
"""Disks that it is copied to at once (database-pool-ha 2.5)."""


def is_ours(rows: Rows, row: Record) -> bool:
    """Whether the disk is for this pool's database."""
    return bool(is_metadata(row) and row["metadata_of_pool"] == next(iter(rows.rows("pool")), None))


def is_replicated(rows: Rows, row: Record) -> bool:
    return is_ours(rows, row) and row["other_config"].get(REPLICATED) == row["uuid"]


def ours(rows: Rows, sr: str) -> list[str]:
    """Of an SR. Raises HANDLE_INVALID."""
    return [ref for ref in existing(rows, "SR", sr)["VDIs"] if is_ours(rows, existing(rows, "VDI", ref))]


def usable(rows: Rows, sr: str) -> str | None:
    """A disk of the SR that is there for it already, rather one that has it. Raises HANDLE_INVALID."""
    found = {ref: existing(rows, "VDI", ref) for ref in ours(rows, sr)}
    fit = [ref for ref, row in found.items() if row["virtual_size"] >= REDO_LOG_SIZE and not row["read_only"]]
    return min(fit, key=lambda ref: not is_replicated(rows, found[ref]), default=None)


def is_metadata(row: Record) -> bool:
    return bool(row["type"] == METADATA)


def replicated(rows: Rows, metadata: Iterable[str] | None = None) -> list[str]:
    """`metadata`: the disks of that type, where they are known."""
    known = rows.rows("VDI") if metadata is None else metadata
    return [ref for ref in known if is_replicated(rows, existing(rows, "VDI", ref))]


def check_room(rows: Rows) -> ApiError | None:
    """Why it cannot be copied to one more."""
    return ApiError("NO_MORE_REDO_LOGS_ALLOWED") if len(replicated(rows)) >= MOST else None


def begun(rows: Rows, vdi: str) -> Sequence[Change]:
    """It has the newest rows, and gets those that follow. Raises HANDLE_INVALID."""
    uuid = existing(rows, "VDI", vdi)["uuid"]
    return [
        MapPut(cls="VDI", ref=vdi, field="other_config", key=REPLICATED, value=uuid),
        latest(vdi, True),
    ]


def ended(vdi: str) -> Sequence[Change]:
    return [MapDrop(cls="VDI", ref=vdi, field="other_config", key=REPLICATED), latest(vdi, False)]


def latest(vdi: str, value: bool) -> Change:
    return Update(cls="VDI", ref=vdi, fields={"metadata_latest": value})
