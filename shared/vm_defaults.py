"""What a VM has when nobody says otherwise: the API gives it to new ones, the database to those of old releases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MIB: Final = 1 << 20

QEMU_PROCESS_MIB: Final = 128
QEMU_PER_VCPU_MIB: Final = 2
VIDEO_MIB: Final = 4
"""Of a VM whose platform does not say `videoram`; only HVM domains have a display."""

MOST: Final = 2**63 - 1
"""What a field can hold; clients may ask for that many virtual CPUs."""


def overhead(vm: Mapping[str, Any]) -> int:
    """What QEMU needs to run the VM, beside its memory: the process, its video memory, and state per virtual CPU.

    Bytes.
    """
    vcpus: int = vm["VCPUs_max"]
    video = 0
    if vm["domain_type"] in ("hvm", "unspecified"):
        text = vm["platform"].get("videoram", "")
        video = int(text) if text.isdecimal() and len(text) < 10 else VIDEO_MIB
    return min(MOST, (QEMU_PROCESS_MIB + video + QEMU_PER_VCPU_MIB * vcpus) * MIB)


DEVICE_MODELS: Final = {"bios": "qemu-upstream-compat", "uefi": "qemu-upstream-uefi"}
"""Firmware to `platform:device-model`: XenAPI's names for QEMU's machine, whatever QEMU it is."""

GENERIC_BIOS_STRINGS: Final = {
    "bios-vendor": "Xen",
    "bios-version": "",
    "system-manufacturer": "Xen",
    "system-product-name": "HVM domU",
    "system-version": "",
    "system-serial-number": "",
    "baseboard-manufacturer": "",
    "baseboard-product-name": "",
    "baseboard-version": "",
    "baseboard-serial-number": "",
    "baseboard-asset-tag": "",
    "baseboard-location-in-chassis": "",
    "enclosure-asset-tag": "",
    "hp-rombios": "",
    "oem-1": "Xen",
    "oem-2": "MS_VM_CERT/SHA1/bdbeb6e0a816d43fa6d3fe8aaef04c2bad9d3e3d",
}
"""BIOS strings (vm-lifecycle 4)."""

WHOLE_GPU: Final[dict[str, Any]] = {
    "model_name": "passthrough",
    "implementation": "passthrough",
    "identifier": "passthrough",
}
"""The VGPU type that hands a whole GPU to a VM."""
