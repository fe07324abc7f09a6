"""Whether a disk can be moved to another SR under its VM (storage 4.8)."""

from __future__ import annotations

from typing import Final

from services.api.decisions import liveness, vdi_operations
from services.api.decisions.rows import NULL, Rows, existing
from services.api.decisions.sm_features import features, plugged_pbds
from services.api.decisions.vbd_operations import is_attached
from shared.errors import ApiError

SOURCE: Final = ("VDI_SNAPSHOT", "VDI_MIRROR")
TARGET: Final = ("VDI_SNAPSHOT", "VDI_MIRROR_IN")
IMPLIED: Final = {"VDI_MIRROR_IN": "VDI_MIRROR"}
"""What a driver need not say that says more."""


def vm_of(rows: Rows, vdi: str) -> str:
    """The VM that the disk is moved under: one that has it open, if any. Raises VDI_NEEDS_VM_FOR_MIGRATE [vdi]."""
    row = rows.row("VDI", vdi)
    if row is None or not row["VBDs"]:
        raise ApiError("VDI_NEEDS_VM_FOR_MIGRATE", vdi)
    vbds = [existing(rows, "VBD", ref) for ref in row["VBDs"]]
    return str(max(vbds, key=is_attached)["VM"])


def vbd_of(rows: Rows, vm: str, vdi: str) -> str:
    """By which the VM has the disk."""
    vbds: list[str] = existing(rows, "VDI", vdi)["VBDs"]
    return next(ref for ref in vbds if existing(rows, "VBD", ref)["VM"] == vm)


def is_live(rows: Rows, vm: str) -> bool:
    """Whether it has its disks open."""
    return str(existing(rows, "VM", vm)["power_state"]) in ("Running", "Paused")


def snapshots(rows: Rows, vm: str, vdi: str) -> list[str]:
    """Those of the disk that belong to snapshots of its VM and move with it, the earliest first."""
    vbds = (
        rows.row("VBD", ref) for one in existing(rows, "VM", vm)["snapshots"] for ref in rows.get("VM", one, "VBDs")
    )
    disks = {vbd["VDI"]: row for vbd in vbds if vbd is not None and (row := rows.row("VDI", vbd["VDI"])) is not None}
    home = existing(rows, "VDI", vdi)["SR"]
    mine = [ref for ref, row in disks.items() if row["snapshot_of"] == vdi and row["SR"] == home]
    return sorted(mine, key=lambda ref: (disks[ref]["snapshot_time"], ref))


def check_disk(rows: Rows, vdi: str, sr: str, image_format: str = "") -> ApiError | None:
    """Why the move may not begin, apart from what its VM says. `image_format`: of the new disk, "" for any.

    Raises HANDLE_INVALID, VDI_NEEDS_VM_FOR_MIGRATE.
    """
    vm = vm_of(rows, vdi)
    refusal = vdi_operations.check(rows, vdi, "mirror")
    if refusal is not None:
        return refusal
    source = existing(rows, "VDI", vdi)["SR"]
    existing(rows, "SR", sr)
    seeing = hosts(rows, vm, vdi, sr)
    if not seeing:
        return ApiError("NO_HOSTS_AVAILABLE")
    if sr == source:
        return None
    refusal = _lacks(rows, source, SOURCE) or _lacks(rows, sr, TARGET) or _others(rows, vm, vdi)
    if refusal is None and is_live(rows, vm) and existing(rows, "VM", vm)["resident_on"] not in seeing:
        return ApiError("VM_REQUIRES_SR", vm, sr)  # it would have to move with its disk
    return refusal or check_format(rows, sr, image_format)


def check_format(rows: Rows, sr: str, image_format: str) -> ApiError | None:
    """VDI_INCOMPATIBLE_TYPE [why] for a format that is none of those that the SR's driver names. If it names none, the
    SR decides when the disk is made.
    """
    row = existing(rows, "SR", sr)
    drivers = [driver for driver in rows.rows("SM").values() if driver["type"] == row["type"]]
    known = {name for driver in drivers for name in driver["supported_image_formats"]}
    if not image_format or not known or image_format in known:
        return None
    return ApiError("VDI_INCOMPATIBLE_TYPE", f"SR {row['uuid']} has no disks of format {image_format}")


def _others(rows: Rows, vm: str, vdi: str) -> ApiError | None:
    """Another VM that has the disk open cannot go on with another one."""
    vbds = [existing(rows, "VBD", ref) for ref in existing(rows, "VDI", vdi)["VBDs"]]
    used = any(is_attached(vbd) and vbd["VM"] != vm for vbd in vbds)
    return ApiError("VDI_IN_USE", vdi, "mirror") if used else None


def hosts(rows: Rows, vm: str, vdi: str, sr: str) -> list[str]:
    """Live hosts that see the VM's other disks and the disk's new SR; the one where the VM is, if it is one, first."""
    drives = [existing(rows, "VBD", ref) for ref in existing(rows, "VM", vm)["VBDs"]]
    others = (rows.row("VDI", vbd["VDI"]) for vbd in drives if not vbd["empty"] and vbd["VDI"] != vdi)
    srs = {sr, *(row["SR"] for row in others if row is not None)}
    seeing = [{pbd["host"] for pbd in plugged_pbds(rows, existing(rows, "SR", one))} for one in srs]
    home = existing(rows, "VM", vm)["resident_on"]
    found = [host for host in set.intersection(*seeing) if host != NULL and liveness.is_live(rows, host)]
    return sorted(found, key=lambda host: (host != home, host))


def _lacks(rows: Rows, sr: str, wanted: tuple[str, ...]) -> ApiError | None:
    able = features(rows, existing(rows, "SR", sr))
    missing = [name for name in wanted if name not in able and IMPLIED.get(name) not in able]
    return ApiError("SR_DOES_NOT_SUPPORT_MIGRATION", sr, ";".join(missing)) if missing else None
