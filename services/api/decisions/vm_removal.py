"""What goes with a VM's record: its devices, metrics and blobs. Disks stay."""

from __future__ import annotations

from typing import Final

from services.api.decisions import vtpms
from services.api.decisions.device_metrics import removed as device_removed
from services.api.decisions.rows import Rows, existing, is_null
from shared.contracts.db import Change, Delete, Update

_METRICS: Final = (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics"))


def removed(rows: Rows, vm: str) -> list[Change]:
    """Snapshots and children move up to its own parent. Raises HANDLE_INVALID."""
    row = existing(rows, "VM", vm)
    gone: list[Change] = [Update(cls="VM", ref=child, fields={"parent": row["parent"]}) for child in row["children"]]
    for ref in row["VBDs"]:
        gone += device_removed(rows, "VBD", ref)
    for ref in row["VIFs"]:
        gone += device_removed(rows, "VIF", ref)
    for vtpm in row["VTPMs"]:
        gone += vtpms.removed(rows, vtpm)
    for cls in ("VUSB", "VGPU"):
        gone += [Delete(cls=cls, ref=ref) for ref in row[cls + "s"] if rows.row(cls, ref) is not None]
    gone += [Delete(cls="console", ref=ref) for ref in row["consoles"]]
    gone += [Delete(cls="blob", ref=ref) for ref in row["blobs"].values() if rows.row("blob", ref) is not None]
    gone += [Delete(cls=cls, ref=row[name]) for cls, name in _METRICS if not is_null(row[name])]
    return [*gone, Delete(cls="VM", ref=vm)]
