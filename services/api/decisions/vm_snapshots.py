"""What VM.snapshot writes, and what VM.revert restores (vm-lifecycle 1.6)."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from services.api.decisions import vm_records, vtpms
from services.api.decisions.device_metrics import removed
from services.api.decisions.fresh import Fresh
from services.api.decisions.rows import Record, Rows, existing, is_null
from shared.contracts.db import Change, Create, Delete, Row, Update
from shared.datamodel import model
from shared.datamodel.types import STRING, MapType
from shared.datamodel.values import from_text, to_text

_FIELDS: Final = model.classes["VM"].fields
_TEXTS: Final = MapType(STRING, STRING)
"""Column to the text of its value: the form of `snapshot_metadata`."""

KEPT: Final = frozenset(
    {
        "uuid",
        "allowed_operations",
        "current_operations",
        "power_state",
        "suspend_VDI",
        "resident_on",
        "scheduled_to_be_resident_on",
        "affinity",
        "domid",
        "metrics",
        "guest_metrics",
        "parent",
        "children",
        "snapshots",
        "snapshot_of",
        "snapshot_schedule",
        "is_a_snapshot",
        "snapshot_time",
        "snapshot_info",
        "snapshot_metadata",
        "tags",
        "groups",
        "consoles",
        "VBDs",
        "VIFs",
        "VUSBs",
        "VGPUs",
        "VTPMs",
        "attached_PCIs",
        "crash_dumps",
        "generation_id",
    }
)
"""Fields that a VM keeps as they are when it is reverted."""


def disk_drives(rows: Rows, vm: str) -> dict[str, str]:
    """VBD to VDI of the VM's disks: not of CDs, nor of empty drives."""
    drives = ((ref, existing(rows, "VBD", ref)) for ref in existing(rows, "VM", vm)["VBDs"])
    return {
        ref: vbd["VDI"] for ref, vbd in drives if vbd["type"] != "CD" and not vbd["empty"] and not is_null(vbd["VDI"])
    }


def metadata(vm: Record) -> str:
    """The VM's row as text: `(('name__label' 'value') ...)`."""
    return to_text(_TEXTS, {field.column: to_text(field.type, vm[name]) for name, field in _FIELDS.items()})


def taken(
    rows: Rows,
    vm: str,
    ref: str,
    name_label: str,
    disks: Mapping[str, str],
    fresh: Fresh,
    now: str,
    without: Container[str] = (),
) -> list[Change]:
    """The rows of a snapshot `ref` of the VM, whose disks have been taken already (`disks`: VBD of the VM -> VDI)."""
    row = existing(rows, "VM", vm)
    snapshot: Row = {
        "is_a_snapshot": True,
        "is_a_template": True,
        "snapshot_of": vm,
        "snapshot_time": now,
        "snapshot_info": {
            "disk-snapshot-type": "crash_consistent",
            "power-state-at-snapshot": row["power_state"],
        },
        "snapshot_metadata": metadata(row),
        "parent": row["parent"],
    }
    changes = vm_records.cloned(rows, vm, ref, name_label, disks, fresh, macs=True, without=without)
    return [*(_with(change, ref, snapshot) for change in changes), Update(cls="VM", ref=vm, fields={"parent": ref})]


def _with(change: Change, ref: str, fields: Row) -> Change:
    if not isinstance(change, Create) or change.ref != ref:
        return change
    return Create(cls="VM", ref=ref, fields={**change.fields, **fields})


def restored(snapshot: Record) -> Row:
    """The fields of the VM as they were; columns that nobody knows any more are left out."""
    texts: dict[str, str] = from_text(_TEXTS, snapshot["snapshot_metadata"])
    fields = {
        name: from_text(field.type, texts[field.column])
        for name, field in _FIELDS.items()
        if name not in KEPT and field.column in texts
    }
    return {**fields, "ha_always_run": False}


def reverted(rows: Rows, snapshot: str, vm: str, disks: Mapping[str, str], fresh: Fresh) -> list[Change]:
    """The rows of the VM as the snapshot has it: settings, drives and interfaces. The VM is halted.

    `disks`: VBD of the snapshot -> the copy of its disk that the VM gets. Drives and interfaces that the VM has now go,
    its present disks stay.
    """
    source, row = existing(rows, "VM", snapshot), existing(rows, "VM", vm)
    changes: list[Change] = []
    for vbd in row["VBDs"]:
        changes += removed(rows, "VBD", vbd)
    for vif in row["VIFs"]:
        changes += removed(rows, "VIF", vif)
    changes += [Delete(cls=cls, ref=ref) for cls in ("VUSB", "VGPU") for ref in row[cls + "s"]]
    for vtpm in row["VTPMs"]:
        changes += vtpms.removed(rows, vtpm)
    changes += vm_records.devices(rows, source, vm, disks, fresh)
    changes += _repointed(rows, disks)
    fields = {
        **restored(source),
        "parent": snapshot,
        "generation_id": vm_records.fresh_generation_id(source["generation_id"], fresh),
    }
    return [*changes, Update(cls="VM", ref=vm, fields=fields)]


def _repointed(rows: Rows, disks: Mapping[str, str]) -> list[Change]:
    """Snapshots of the disks that are replaced are snapshots of their successors."""
    successors = {
        existing(rows, "VDI", existing(rows, "VBD", vbd)["VDI"])["snapshot_of"]: copy for vbd, copy in disks.items()
    }
    return [
        Update(cls="VDI", ref=ref, fields={"snapshot_of": successors[vdi["snapshot_of"]]})
        for ref, vdi in rows.rows("VDI").items()
        if not is_null(vdi["snapshot_of"]) and vdi["snapshot_of"] in successors
    ]
