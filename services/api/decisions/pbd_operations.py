"""When a PBD may be made, plugged, unplugged or destroyed (storage 4.4). PBDs have no allowed_operations."""

from __future__ import annotations

from services.api.decisions.rows import Rows, busy, existing, the_pool
from services.api.decisions.vbd_operations import is_attached
from shared.errors import ApiError


def check_create(rows: Rows, host: str, sr: str, device_config: dict[str, str]) -> ApiError | None:
    """Why there may be no PBD of that SR on that host."""
    for ref in existing(rows, "SR", sr)["PBDs"]:
        pbd = rows.row("PBD", ref)
        if pbd is not None and pbd["host"] == host:
            return ApiError("PBD_EXISTS", sr, host, ref)
    existing(rows, "host", host)
    return check_config(device_config)


def check_config(device_config: dict[str, str]) -> ApiError | None:
    if (value := device_config.get("SRmaster")) is not None:
        return ApiError("VALUE_NOT_SUPPORTED", "SRmaster", value, "set by the pool itself")
    return None


def check_plug(rows: Rows, pbd: str) -> ApiError | None:
    """Why the SR may not be attached there. Plugging what is plugged does nothing and is allowed."""
    row = existing(rows, "PBD", pbd)
    sr = existing(rows, "SR", row["SR"])
    if row["currently_attached"] or sr["shared"]:
        return None
    for ref in sr["PBDs"]:
        other = rows.row("PBD", ref)
        if ref != pbd and other is not None and other["currently_attached"]:
            return ApiError("SR_NOT_SHARABLE", row["SR"], other["host"])
    return None


def check_idle(rows: Rows, pbd: str) -> ApiError | None:
    """OTHER_OPERATION_IN_PROGRESS for a disk of the SR that is worked on."""
    for ref in existing(rows, "SR", existing(rows, "PBD", pbd)["SR"])["VDIs"]:
        row = rows.row("VDI", ref)
        for task, operation in (row["current_operations"] if row is not None else {}).items():
            return busy("VDI", ref, operation, task)
    return None


def check_unplug(rows: Rows, pbd: str) -> ApiError | None:
    """Why the SR may not be detached there: High Availability needs it, or VMs on that host hold disks of it."""
    row = existing(rows, "PBD", pbd)
    if not row["currently_attached"]:
        return None
    disks = list(existing(rows, "SR", row["SR"])["VDIs"])
    pool, host = the_pool(rows), rows.row("host", row["host"])
    if pool is not None and pool["ha_enabled"]:
        strict = host is not None and host["enabled"] and not pool["ha_allow_overcommit"]
        if strict and any(_is_protected(rows, vdi) for vdi in disks):
            return ApiError("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", row["SR"])
        if set(pool["ha_statefiles"]) & set(disks):
            return ApiError("HA_IS_ENABLED")
    used = [ref for ref in disks if _used_on(rows, ref, row["host"])]
    return ApiError("VDI_IN_USE", *used) if used else None


def _is_protected(rows: Rows, vdi: str) -> bool:
    """Whether a VM has the disk that is to be restarted on another host."""
    for ref in existing(rows, "VDI", vdi)["VBDs"]:
        vbd = rows.row("VBD", ref)
        vm = rows.row("VM", vbd["VM"]) if vbd is not None else None
        if vm is not None and vm["ha_always_run"] and vm["ha_restart_priority"] == "restart":
            return True
    return False


def _used_on(rows: Rows, vdi: str, host: str) -> bool:
    row = rows.row("VDI", vdi)
    if row is None or row["type"] == "metadata":
        return False
    for ref in row["VBDs"]:
        vbd = rows.row("VBD", ref)
        vm = rows.row("VM", vbd["VM"]) if vbd is not None and is_attached(vbd) else None
        if vm is not None and vm["resident_on"] == host:
            return True
    return False


def check_destroy(rows: Rows, pbd: str) -> ApiError | None:
    row = existing(rows, "PBD", pbd)
    return ApiError("OPERATION_NOT_ALLOWED", "the PBD is plugged") if row["currently_attached"] else None
