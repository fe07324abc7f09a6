"""What a host needs to know to run a VM, collected from the rows, so that it does not have to ask back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.decisions import unfinished_moves, vbd_devices
from services.api.decisions.rows import is_null
from shared.contracts.vm import VbdSpec, VifSpec, VmSpec
from shared.errors import ApiError
from shared.store import Store

Row = Mapping[str, Any]


def vm_spec(store: Store, vm: str, *, attached: bool = False) -> VmSpec:
    """`attached`: without the disks that the VM, which runs, does not have.

    Raises HANDLE_INVALID for the VM, or for a disk or network that its devices name and that is gone;
    OTHER_OPERATION_IN_PROGRESS as long as nobody knows whether a disk, or the one that it was to move to, counts.
    """
    row = store.row("VM", vm)
    if row is None:
        raise ApiError("HANDLE_INVALID", "VM", vm)
    disks = [ref for ref in row["VBDs"] if not attached or store.get("VBD", ref, "currently_attached")]
    for ref in disks:
        unfinished_moves.require_known(store, store.get("VBD", ref, "VDI"))
    vbds = [vbd_spec(store, ref) for ref in sorted(disks, key=lambda ref: _number(store, "VBD", ref))]
    vifs = [vif_spec(store, ref) for ref in sorted(row["VIFs"], key=lambda ref: _number(store, "VIF", ref))]
    return VmSpec(
        ref=vm,
        uuid=row["uuid"],
        name_label=row["name_label"],
        domain_type=row["domain_type"],
        memory_static_max=row["memory_static_max"],
        memory_dynamic_min=row["memory_dynamic_min"],
        memory_dynamic_max=row["memory_dynamic_max"],
        vcpus_max=row["VCPUs_max"],
        vcpus_at_startup=row["VCPUs_at_startup"],
        actions_after_shutdown=row["actions_after_shutdown"],
        actions_after_reboot=row["actions_after_reboot"],
        actions_after_crash=row["actions_after_crash"],
        hvm_boot_params=row["HVM_boot_params"],
        pv_bootloader=row["PV_bootloader"],
        pv_kernel=row["PV_kernel"],
        pv_ramdisk=row["PV_ramdisk"],
        pv_args=row["PV_args"],
        vcpus_params=row["VCPUs_params"],
        platform=row["platform"],
        xenstore_data=row["xenstore_data"],
        other_config=row["other_config"],
        vbds=vbds,
        vifs=vifs,
    )


def _number(store: Store, cls: str, ref: str) -> tuple[int, str]:
    device = str(store.get(cls, ref, "userdevice" if cls == "VBD" else "device"))
    try:
        return vbd_devices.position(device).number, device
    except ApiError:
        return 1 << 30, device


def vbd_spec(store: Store, ref: str) -> VbdSpec:
    """Raises HANDLE_INVALID; INVALID_DEVICE for a `userdevice` that means nothing."""
    row = _row(store, "VBD", ref)
    sr = location = vdi_ref = ""
    if not row["empty"] and not is_null(row["VDI"]):
        vdi = _row(store, "VDI", row["VDI"])
        vdi_ref = row["VDI"]
        sr, location = store.get("SR", vdi["SR"], "uuid"), vdi["location"]
    return VbdSpec(
        ref=ref,
        uuid=row["uuid"],
        device=str(vbd_devices.position(row["userdevice"]).number),
        mode=row["mode"],
        type=row["type"],
        bootable=row["bootable"],
        sr=sr,
        location=location,
        vdi=vdi_ref,
        unpluggable=row["unpluggable"],
        qos=row["qos_algorithm_params"],
        other_config=row["other_config"],
    )


def vif_spec(store: Store, ref: str) -> VifSpec:
    """Raises HANDLE_INVALID."""
    row = _row(store, "VIF", ref)
    network = _row(store, "network", row["network"])
    mode = row["locking_mode"]
    return VifSpec(
        ref=ref,
        uuid=row["uuid"],
        device=row["device"],
        mac=row["MAC"],
        bridge=network["bridge"],
        mtu=row["MTU"] or network["MTU"],
        locking_mode=network["default_locking_mode"] if mode == "network_default" else mode,
        other_config=row["other_config"],
    )


def _row(store: Store, cls: str, ref: str) -> Row:
    row = store.row(cls, ref)
    if row is None:
        raise ApiError("HANDLE_INVALID", cls, ref)
    return row
