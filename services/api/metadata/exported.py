"""What goes along when VMs are exported: their devices, what those use, and hosts they are bound to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from services.api.decisions import vtpms
from services.api.decisions.rows import NULL, Record, Rows, existing, is_null
from services.api.metadata import ova
from services.api.metadata.ova import Object
from shared.datamodel import model

EMPTIED: Final[Mapping[str, Any]] = {
    "allowed_operations": [],
    "current_operations": {},
    "consoles": [],
    "crash_dumps": [],
    "blobs": {},
    "PBDs": [],
    "PIFs": [],
}
"""Fields that say nothing elsewhere."""

DEVICE_TYPES: Final = {"vif": "VIF", "vbd": "VBD", "vgpu": "VGPU", "vtpm": "VTPM"}
"""Argument `excluded_device_types` to class."""

HALTED: Final[Mapping[str, Any]] = {
    "power_state": "Halted",
    "suspend_VDI": NULL,
    "resident_on": NULL,
    "scheduled_to_be_resident_on": NULL,
    "domid": -1,
    "last_booted_record": "",
}
"""A VM that is exported without what it did."""


def everything(rows: Rows, *, control_domains: bool) -> list[str]:
    """The VMs of an export of all: templates that are not the toolstack's own, and VMs; snapshots go with them."""
    return [
        ref
        for ref, vm in rows.rows("VM").items()
        if not vm["is_a_snapshot"]
        and not vm["is_default_template"]
        and vm["other_config"].get("default_template") != "true"
        and (control_domains or not vm["is_control_domain"])
    ]


def objects(
    rows: Rows,
    vms: Iterable[str],
    number: Callable[[], int],
    *,
    snapshots: bool,
    parents: bool = False,
    without: Collection[str] = (),
    power_state: bool = True,
) -> list[Object]:
    """`number`: the next free <n>. `snapshots`: the VMs' own go along; `parents`: disks that theirs are built on, too.
    `without`: classes of devices that are left out. `power_state`: suspended VMs stay so, else all are halted.

    Raises HANDLE_INVALID.
    """
    chosen: dict[str, dict[str, None]] = {cls: {} for cls in ova.CLASSES}
    for vm in vms:
        family = [vm, *existing(rows, "VM", vm)["snapshots"]] if snapshots else [vm]
        for one in family:
            _choose(rows, one, chosen, without)
    if parents:
        _choose_parents(rows, chosen["VDI"])
    for vdi in chosen["VDI"]:
        _add(rows, chosen, "SR", existing(rows, "VDI", vdi)["SR"])
    ids = {(cls, ref): f"Ref:{number()}" for cls, refs in chosen.items() for ref in refs}

    def name(cls: str, ref: str) -> str:
        return ids.get((cls, ref), NULL)

    return [Object(cls, known, _fields(rows, cls, ref, name, power_state)) for (cls, ref), known in ids.items()]


def _choose(rows: Rows, vm: str, chosen: dict[str, dict[str, None]], without: Collection[str]) -> None:
    row = existing(rows, "VM", vm)
    chosen["VM"][vm] = None
    _add(rows, chosen, "VM_metrics", row["metrics"])
    _add(rows, chosen, "VM_guest_metrics", row["guest_metrics"])
    _add(rows, chosen, "VDI", row["suspend_VDI"])
    for host in (row["affinity"], row["resident_on"]):
        _add(rows, chosen, "host", host)
    for device, device_row in _devices(rows, row, "VBD", without):
        chosen["VBD"][device] = None
        _add(rows, chosen, "VDI", device_row["VDI"])
    for device, device_row in _devices(rows, row, "VIF", without):
        chosen["VIF"][device] = None
        _add(rows, chosen, "network", device_row["network"])
        for proxy, proxy_row in rows.rows("PVS_proxy").items():
            if proxy_row["VIF"] == device:
                chosen["PVS_proxy"][proxy] = None
                _add(rows, chosen, "PVS_site", proxy_row["site"])
    for device, device_row in _devices(rows, row, "VGPU", without):
        chosen["VGPU"][device] = None
        _add(rows, chosen, "VGPU_type", device_row["type"])
        _add(rows, chosen, "GPU_group", device_row["GPU_group"])
    for device, _ in _devices(rows, row, "VTPM", without):
        chosen["VTPM"][device] = None


def _devices(rows: Rows, vm: Record, cls: str, without: Collection[str]) -> Iterator[tuple[str, Record]]:
    for ref in vm[cls + "s"] if cls not in without else ():
        if (row := rows.row(cls, ref)) is not None:
            yield ref, row


def _add(rows: Rows, chosen: dict[str, dict[str, None]], cls: str, ref: str) -> None:
    if not is_null(ref) and rows.row(cls, ref) is not None:
        chosen[cls][ref] = None


def _choose_parents(rows: Rows, disks: dict[str, None]) -> None:
    by_uuid = {row["uuid"]: ref for ref, row in rows.rows("VDI").items()}
    waiting = list(disks)
    while waiting:
        parent = by_uuid.get(existing(rows, "VDI", waiting.pop())["sm_config"].get("vhd-parent", ""))
        if parent is not None and parent not in disks:
            disks[parent] = None
            waiting.append(parent)


def _fields(rows: Rows, cls: str, ref: str, name: Callable[[str, str], str], power_state: bool) -> dict[str, Any]:
    row = dict(existing(rows, cls, ref))
    if cls == "VTPM":
        row["content"] = vtpms.contents_of(rows, ref)
        return {field: ova.renamed(of, row[field], name) for field, of in ova.VTPM_FIELDS.items()}
    row |= {field: empty for field, empty in EMPTIED.items() if field in row}
    if cls == "VM" and not power_state:
        row |= HALTED
    fields = model.classes[cls].fields
    return {field: ova.renamed(fields[field].type, value, name) for field, value in row.items()}
