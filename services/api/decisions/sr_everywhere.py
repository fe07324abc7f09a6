"""Which SRs can hold what the whole pool depends on: the statefile of High Availability, copies of the database."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Rows, existing
from services.api.decisions.sm_features import features
from shared.errors import ApiError, internal_error

MIB: Final = 1 << 20
STATEFILE_SIZE: Final = 4096 * (1 + 64)
"""Bytes: one block of 4 KiB for the pool and for each of 64 hosts."""
REDO_LOG_SIZE: Final = 3804 * MIB
"""Bytes of a disk for the database's redo log: with a statefile, it fits on 4 GB."""
ROOM: Final = 4 * MIB + REDO_LOG_SIZE
"""Bytes that must be free when one of both has to be made (database-pool-ha 4)."""
STATEFILE_FEATURES: Final = frozenset({"VDI_GENERATE_CONFIG", "VDI_ATTACH_OFFLINE"})
"""A driver that has one of them can attach a disk while there is no database."""
HOLDS_DATABASES: Final = "SR_METADATA"


def attached_everywhere(rows: Rows, sr: str) -> ApiError | None:
    """SR_HAS_NO_PBDS [sr] unless each host of the pool has the SR attached."""
    pbds = [existing(rows, "PBD", ref) for ref in existing(rows, "SR", sr)["PBDs"]]
    reached = {pbd["host"] for pbd in pbds} >= set(rows.rows("host"))
    return None if reached and all(pbd["currently_attached"] for pbd in pbds) else ApiError("SR_HAS_NO_PBDS", sr)


def _driver_features(rows: Rows, sr: str) -> set[str]:
    row = existing(rows, "SR", sr)
    if all(driver["type"] != row["type"] for driver in rows.rows("SM").values()):
        raise internal_error(f"there is no driver of the attached SR {sr}")
    return set(features(rows, row))


def check_statefile(rows: Rows, sr: str) -> ApiError | None:
    """Why a statefile and a redo log of High Availability cannot be there. Raises HANDLE_INVALID."""
    if error := attached_everywhere(rows, sr):
        return error
    if error := check_attached_offline(rows, sr):
        return error
    row = existing(rows, "SR", sr)
    kept = _disk(rows, sr, "ha_statefile", STATEFILE_SIZE) and redo_log_disk(rows, sr)
    free = row["physical_size"] - row["physical_utilisation"]
    return None if kept or free >= ROOM else ApiError("SR_SOURCE_SPACE_INSUFFICIENT", sr)


def check_attached_offline(rows: Rows, sr: str) -> ApiError | None:
    """Why nothing can be there that hosts attach before they have a database. Raises HANDLE_INVALID."""
    supported = STATEFILE_FEATURES & _driver_features(rows, sr)
    return None if supported else ApiError("SR_OPERATION_NOT_SUPPORTED", sr)


def redo_log_disk(rows: Rows, sr: str) -> str | None:
    """A disk of the SR that is there for it already. Raises HANDLE_INVALID."""
    return _disk(rows, sr, "redo_log", REDO_LOG_SIZE)


def redo_log_sr(rows: Rows) -> str | None:
    """The SR that the database's redo log is on as well, if there is one."""
    pool = next(iter(rows.rows("pool").values()))
    disk = rows.row("VDI", pool["redo_log_vdi"]) if pool["redo_log_enabled"] else None
    return None if disk is None else str(disk["SR"])


def _disk(rows: Rows, sr: str, type_: str, size: int) -> str | None:
    disks = ((ref, existing(rows, "VDI", ref)) for ref in existing(rows, "SR", sr)["VDIs"])
    return next((ref for ref, row in disks if row["type"] == type_ and row["virtual_size"] >= size), None)


def check_replication(rows: Rows, sr: str) -> ApiError | None:
    """Why copies of the database cannot be there. Raises HANDLE_INVALID."""
    if error := attached_everywhere(rows, sr):
        return error
    return None if HOLDS_DATABASES in _driver_features(rows, sr) else ApiError("SR_OPERATION_NOT_SUPPORTED", sr)
