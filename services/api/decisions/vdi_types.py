"""Types of disks as errors name them."""

from __future__ import annotations

from typing import Final

from shared.errors import ApiError

NAMES: Final = {
    "cbt_metadata": "CBT metadata",
    "ha_statefile": "HA statefile",
    "pvs_cache": "PVS cache",
    "redo_log": "Redo log",
    "rrd": "rrd",
}
"""Those that are not just capitalised."""


def incompatible(vdi: str, type_: str) -> ApiError:
    """VDI_INCOMPATIBLE_TYPE [vdi, type]. `vdi`: "" when there is none yet."""
    return ApiError("VDI_INCOMPATIBLE_TYPE", vdi, NAMES.get(type_, type_.capitalize()))
