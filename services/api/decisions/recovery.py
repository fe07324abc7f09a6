"""Recovering VMs from another pool's database: which SRs they need that this pool does not have attached."""

from __future__ import annotations

from services.api.decisions.placement import attached_on
from services.api.decisions.rows import Rows, existing, is_null
from shared.errors import ApiError


def required_srs(rows: Rows, vm: str) -> list[str]:
    """SRs of the VM's disks, not of its CDs. Raises HANDLE_INVALID."""
    row = existing(rows, "VM", vm)
    vbds = (existing(rows, "VBD", ref) for ref in row["VBDs"])
    vdis = [vbd["VDI"] for vbd in vbds if vbd["type"] != "CD" and not vbd["empty"]]
    if not is_null(row["suspend_VDI"]):
        vdis.append(row["suspend_VDI"])
    disks = (rows.row("VDI", vdi) for vdi in vdis)
    found = dict.fromkeys(str(disk["SR"]) for disk in disks if disk is not None)
    return [sr for sr in found if existing(rows, "SR", sr)["content_type"] != "iso"]


def missing_srs(rows: Rows, vm: str) -> list[str]:
    """Those that no host has attached."""
    return [sr for sr in required_srs(rows, vm) if not attached_on(rows, sr)]


def check(rows: Rows, vm: str) -> ApiError | None:
    """VM_REQUIRES_SR for the first that is missing."""
    missing = missing_srs(rows, vm)
    return ApiError("VM_REQUIRES_SR", vm, missing[0]) if missing else None
