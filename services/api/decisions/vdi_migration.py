"""Whether a disk can be moved to another SR under its VM (storage 4.8)."""

from __future__ import annotations

from typing import Final

from services.api.decisions import vdi_operations, vm_operations
from services.api.decisions.liveness import is_live
from services.api.decisions.rows import NULL, Rows, existing
from services.api.decisions.sm_features import features, plugged_pbds
from shared.errors import ApiError

SOURCE: Final = ("VDI_SNAPSHOT", "VDI_MIRROR")
TARGET: Final = ("VDI_SNAPSHOT", "VDI_MIRROR_IN")
IMPLIED: Final = {"VDI_MIRROR_IN": "VDI_MIRROR"}
"""What a driver need not say that says more."""


def vm_of(rows: Rows, vdi: str) -> str:
    """The VM that the disk is moved under. Raises VDI_NEEDS_VM_FOR_MIGRATE [vdi]."""
    row = rows.row("VDI", vdi)
    if row is None or not row["VBDs"]:
        raise ApiError("VDI_NEEDS_VM_FOR_MIGRATE", vdi)
    return str(existing(rows, "VBD", row["VBDs"][0])["VM"])


def check(rows: Rows, vdi: str, sr: str) -> ApiError | None:
    """Why the move may not begin. Raises HANDLE_INVALID, VDI_NEEDS_VM_FOR_MIGRATE."""
    vm = vm_of(rows, vdi)
    refusal = vm_operations.check(rows, vm, "migrate_send") or vdi_operations.check(rows, vdi, "mirror")
    if refusal is not None:
        return refusal
    source = existing(rows, "VDI", vdi)["SR"]
    existing(rows, "SR", sr)
    if not hosts(rows, vm, vdi, sr):
        return ApiError("NO_HOSTS_AVAILABLE")
    if sr == source:
        return None
    return _lacks(rows, source, SOURCE) or _lacks(rows, sr, TARGET)


def hosts(rows: Rows, vm: str, vdi: str, sr: str) -> list[str]:
    """Live hosts that see the VM's other disks and the disk's new SR; the one where the VM is, if it is one, first."""
    drives = [existing(rows, "VBD", ref) for ref in existing(rows, "VM", vm)["VBDs"]]
    others = (rows.row("VDI", vbd["VDI"]) for vbd in drives if not vbd["empty"] and vbd["VDI"] != vdi)
    srs = {sr, *(row["SR"] for row in others if row is not None)}
    seeing = [{pbd["host"] for pbd in plugged_pbds(rows, existing(rows, "SR", one))} for one in srs]
    home = existing(rows, "VM", vm)["resident_on"]
    found = [host for host in set.intersection(*seeing) if host != NULL and is_live(rows, host)]
    return sorted(found, key=lambda host: (host != home, host))


def _lacks(rows: Rows, sr: str, wanted: tuple[str, ...]) -> ApiError | None:
    able = features(rows, existing(rows, "SR", sr))
    missing = [name for name in wanted if name not in able and IMPLIED.get(name) not in able]
    return ApiError("SR_DOES_NOT_SUPPORT_MIGRATION", sr, ";".join(missing)) if missing else None
