"""Devices of a host that are given to a VM: GPUs, USB devices, and the virtual TPM. Whether they are there, and that no
host can give one yet.
"""

from __future__ import annotations

from services.api.decisions import gpus
from services.api.decisions.rows import Record, Rows, existing, is_true
from shared.errors import ApiError


def elsewhere(rows: Rows, vm: Record, ref: str, host: str) -> ApiError | None:
    """Why the host has not what the VM's devices stand for: VM_REQUIRES_GPU, _VGPU, OPERATION_NOT_ALLOWED."""
    if vm["VGPUs"] and (refusal := gpus.unavailable(rows, vm, ref, host)):
        return refusal
    for vusb in vm["VUSBs"]:
        group = rows.row("USB_group", existing(rows, "VUSB", vusb)["USB_group"])
        devices = (rows.row("PUSB", device) for device in (group["PUSBs"] if group is not None else ()))
        if not any(device is not None and device["host"] == host for device in devices):
            return ApiError("OPERATION_NOT_ALLOWED", f"VUSB {vusb} is not available on Host {host}")
    return None


def not_built(vm: Record, message: str) -> ApiError | None:
    """NOT_IMPLEMENTED for a device that no host gives to a VM: the VM would start without it."""
    if vm["VGPUs"]:
        what = "a VGPU"
    elif vm["VUSBs"]:
        what = "a VUSB"
    elif vm["VTPMs"] or is_true(vm["platform"].get("vtpm")):
        what = "a VTPM"
    elif vm["other_config"].get("pci"):
        what = "PCI devices"
    else:
        return None
    return ApiError("NOT_IMPLEMENTED", f"{message} of a VM with {what}")
