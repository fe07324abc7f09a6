"""Rows of classes PCI, PGPU and PUSB from what a host has found: new ones appear, changed ones follow, gone ones go.

Several processes may write at once: what two of them could both make has a reference that follows from what it is.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterable
from typing import Any, Final

from services.api.decisions.rows import NULL, Record, Rows
from shared.contracts.db import Change, Create, Delete, Update
from shared.contracts.host import Devices, PciDevice, UsbDevice
from shared.store import Store
from shared.vm_defaults import WHOLE_GPU

DISPLAY: Final = "03"
GUEST_DRIVER: Final = "vfio-pci"
"""The driver of a device that the host leaves to VMs."""


def dom0_access(driver: str) -> str:
    """Whether the host uses a device itself that has this driver."""
    return "disabled" if driver == GUEST_DRIVER else "enabled"


def named_ref(*parts: str) -> str:
    """The same for the same parts."""
    return f"OpaqueRef:{uuids.uuid5(uuids.NAMESPACE_URL, ':'.join(parts))}"


def whole_gpu(rows: Rows) -> tuple[str, list[Change]]:
    """The type's reference, and what makes it if it is not there yet."""
    for ref, row in rows.rows("VGPU_type").items():
        if row["implementation"] == WHOLE_GPU["implementation"]:
            return ref, []
    ref = named_ref("VGPU_type", "passthrough")
    return ref, [Create(cls="VGPU_type", ref=ref, fields=WHOLE_GPU)]


def rows(store: Store, host: str, found: Devices) -> list[Change]:
    """`host`: uuid; one that is not known has no rows."""
    ref = store.ref_of_uuid("host", host)
    if ref is None:
        return []
    return [*_pci_rows(store, host, ref, found.pci), *usb_rows(store, host, ref, found.usb)]


# ---- PCI devices and GPUs


def _pci_rows(store: Store, host: str, ref: str, found: Iterable[PciDevice]) -> list[Change]:
    known = {_identity(row): pci for pci, row in store.rows("PCI").items() if row["host"] == ref}
    refs = {device.address: _pci_ref(known, host, device) for device in found}
    changes: list[Change] = []
    for device in found:
        pci = refs[device.address]
        fields = {
            "host": ref,
            **_described(device),
            "physical_function": refs.get(device.physical, NULL),
            "dependencies": [refs[other] for other in device.related if other in refs],
        }
        changes += _written(store, "PCI", pci, fields)
    changes += [Delete(cls="PCI", ref=pci) for pci in known.values() if pci not in refs.values()]
    gpus = [device for device in found if device.class_id.startswith(DISPLAY) and not device.physical]
    return [*changes, *_gpu_rows(store, ref, {refs[device.address]: device for device in gpus})]


def _identity(row: Record) -> tuple[str, ...]:
    return tuple(
        row[name] for name in ("pci_id", "vendor_id", "device_id", "subsystem_vendor_id", "subsystem_device_id")
    )


def _pci_ref(known: dict[tuple[str, ...], str], host: str, device: PciDevice) -> str:
    identity = _identity(_described(device))
    return known.get(identity) or named_ref("PCI", host, *identity)


def _described(device: PciDevice) -> dict[str, Any]:
    return {
        "pci_id": device.address,
        "class_id": device.class_id,
        "class_name": device.class_name,
        "vendor_id": device.vendor_id,
        "vendor_name": device.vendor_name,
        "device_id": device.device_id,
        "device_name": device.device_name,
        "subsystem_vendor_id": device.subsystem_vendor_id,
        "subsystem_vendor_name": device.subsystem_vendor_name,
        "subsystem_device_id": device.subsystem_device_id,
        "subsystem_device_name": device.subsystem_device_name,
        "driver_name": device.driver,
    }


def _written(store: Store, cls: str, ref: str, fields: dict[str, Any]) -> list[Change]:
    """Makes the row, or changes what is not so yet."""
    row = store.row(cls, ref)
    if row is None:
        return [Create(cls=cls, ref=ref, fields=fields)]
    different = {name: value for name, value in fields.items() if row[name] != value}
    return [Update(cls=cls, ref=ref, fields=different)] if different else []


def _gpu_rows(store: Store, host: str, found: dict[str, PciDevice]) -> list[Change]:
    """`found`: by the reference of their PCI rows. A new GPU joins the group of its model."""
    known = {row["PCI"]: ref for ref, row in store.rows("PGPU").items() if row["host"] == host}
    changes: list[Change] = [Delete(cls="PGPU", ref=ref) for pci, ref in known.items() if pci not in found]
    made: dict[str, list[Change]] = {}
    for pci, device in found.items():
        access = {
            "dom0_access": dom0_access(device.driver),
            "is_system_display_device": device.boots_display,
        }
        if pci in known:
            changes += _written(store, "PGPU", known[pci], access)
            continue
        kind, new_kind = whole_gpu(store)
        types = [] if device.boots_display else [kind]
        group, new_group = _group(store, device, types)
        made |= {kind: new_kind, group: new_group}
        fields = {
            **access,
            "PCI": pci,
            "host": host,
            "GPU_group": group,
            "supported_VGPU_types": types,
            "enabled_VGPU_types": types,
            "supported_VGPU_max_capacities": dict.fromkeys(types, 1),
        }
        changes.append(Create(cls="PGPU", ref=named_ref("PGPU", pci), fields=fields))
    return [*(change for new in made.values() for change in new), *changes]


def _group(store: Store, device: PciDevice, types: list[str]) -> tuple[str, list[Change]]:
    """The group of that model only, with the types."""
    model = f"{device.vendor_id}/{device.device_id}"
    for ref, row in store.rows("GPU_group").items():
        if row["GPU_types"] == [model]:
            fields: dict[str, Any] = {
                name: list(dict.fromkeys([*row[name], *types]))
                for name in ("supported_VGPU_types", "enabled_VGPU_types")
            }
            return ref, _written(store, "GPU_group", ref, fields)
    ref = named_ref("GPU_group", model)
    fields = {
        "name_label": f"Group of {device.vendor_name} {device.device_name} GPUs",
        "GPU_types": [model],
        "supported_VGPU_types": types,
        "enabled_VGPU_types": types,
    }
    return ref, [Create(cls="GPU_group", ref=ref, fields=fields)]


# ---- USB devices


def usb_rows(store: Store, host: str, ref: str, found: Iterable[UsbDevice]) -> list[Change]:
    """Each device has a group of its own, which goes with it, as do VUSBs that are not attached."""
    known = {
        (row["path"], row["vendor_id"], row["product_id"], row["serial"]): (pusb, row)
        for pusb, row in store.rows("PUSB").items()
        if row["host"] == ref
    }
    changes: list[Change] = []
    present: set[str] = set()
    for device in found:
        identity = (device.path, device.vendor_id, device.product_id, device.serial)
        if identity in known:
            pusb, row = known[identity]
            present.add(pusb)
            if row["speed"] < 0 <= device.speed:
                changes.append(Update(cls="PUSB", ref=pusb, fields={"speed": device.speed}))
            continue
        group = named_ref("USB_group", host, *identity)
        label = f"Group of {device.vendor_id} {device.product_id} USBs"
        fields = {
            "USB_group": group,
            "host": ref,
            "path": device.path,
            "vendor_id": device.vendor_id,
            "vendor_desc": device.vendor_desc,
            "product_id": device.product_id,
            "product_desc": device.product_desc,
            "serial": device.serial,
            "version": device.version,
            "description": device.description,
            "speed": device.speed,
        }
        changes.append(Create(cls="USB_group", ref=group, fields={"name_label": label}))
        changes.append(Create(cls="PUSB", ref=named_ref("PUSB", host, *identity), fields=fields))
    for pusb, row in known.values():
        if pusb not in present:
            changes += _without(store, pusb, row["USB_group"])
    return changes


def _without(store: Store, pusb: str, group: str) -> list[Change]:
    row = store.row("USB_group", group)
    vusbs = row["VUSBs"] if row is not None else []
    return [
        *(Delete(cls="VUSB", ref=vusb) for vusb in vusbs if not store.get("VUSB", vusb, "currently_attached")),
        Delete(cls="PUSB", ref=pusb),
        *([Delete(cls="USB_group", ref=group)] if row is not None else []),
    ]
