"""Which operations an SR allows now (storage 4.2).

Not decided here yet: rolling upgrades, clashes of cluster stacks.
"""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Record, Rows, busy, existing
from services.api.decisions.sm_features import lacks, plugged_pbds
from shared.errors import ApiError

FEATURES: Final[dict[str, str | None]] = {
    "scan": None,
    "destroy": None,
    "forget": None,
    "plug": None,
    "unplug": None,
    "update": "SR_UPDATE",
    "vdi_create": "VDI_CREATE",
    "vdi_introduce": "VDI_INTRODUCE",
    "vdi_destroy": "VDI_DELETE",
    "vdi_resize": "VDI_RESIZE",
    "vdi_clone": None,  # where the driver has none, it is a snapshot and a copy
    "vdi_snapshot": "VDI_SNAPSHOT",
    "vdi_mirror": "VDI_MIRROR",
    "vdi_enable_cbt": "VDI_CONFIG_CBT",
    "vdi_disable_cbt": "VDI_CONFIG_CBT",
    "vdi_data_destroy": "VDI_CONFIG_CBT",
    "vdi_list_changed_blocks": "VDI_CONFIG_CBT",
    "vdi_set_on_boot": "VDI_RESET_ON_BOOT",
    "vdi_revert": "VDI_REVERT",
    "pbd_create": None,
    "pbd_destroy": None,
}
"""Each operation, and the feature its driver must have."""

OPERATIONS: Final = tuple(FEATURES)
ON_DISKS: Final = frozenset(op for op in FEATURES if op.startswith("vdi_"))
"""An SR does several of these at once; its driver keeps those apart that get in each other's way."""

NOT_ON_TOOLS_SR: Final = frozenset({"vdi_create", "vdi_destroy"})
ENDS: Final = frozenset({"destroy", "forget"})


def _ending(rows: Rows, ref: str, sr: Record, op: str) -> ApiError | None:
    if plugged_pbds(rows, sr):
        return ApiError("SR_HAS_PBD", ref)
    if op == "forget":
        return None
    if not sr["PBDs"]:
        return ApiError("SR_HAS_NO_PBDS", ref)
    vdis = (rows.row("VDI", vdi) for vdi in sr["VDIs"])
    kept = any(vdi is not None and vdi["managed"] and vdi["type"] != "rrd" for vdi in vdis)
    return ApiError("SR_NOT_EMPTY") if kept else None


def _busy(ref: str, sr: Record, op: str, asserting: bool) -> ApiError | None:
    current: dict[str, str] = sr["current_operations"]
    if op == "plug" and set(current.values()) <= {"plug"}:
        return None
    if asserting and op in ON_DISKS and ON_DISKS.issuperset(current.values()):
        return None
    for task, running in current.items():
        return busy("SR", ref, running, task)
    return None


def check(rows: Rows, sr: str, op: str, *, asserting: bool = True) -> ApiError | None:
    """Why the operation may not start now; None if it may.

    `asserting` false asks what `allowed_operations` shows, where an SR that is busy with disks allows no other disk's
    operation either.
    """
    row = rows.row("SR", sr)
    if row is None:
        return ApiError("HANDLE_INVALID", "SR", sr)
    if error := lacks(rows, sr, row, FEATURES[op]):
        return error
    if row["is_tools_sr"] and op in NOT_ON_TOOLS_SR:
        return ApiError("SR_OPERATION_NOT_SUPPORTED", sr)
    if op in ENDS and (error := _ending(rows, sr, row, op)):
        return error
    return _busy(sr, row, op, asserting)


def allowed_operations(rows: Rows, sr: str) -> list[str]:
    """What belongs into `SR.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    existing(rows, "SR", sr)
    return sorted(op for op in OPERATIONS if check(rows, sr, op, asserting=False) is None)
