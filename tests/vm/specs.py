"""VM configurations for tests."""

from __future__ import annotations

import uuid
from typing import Any

from pool.guest.build import ARGS, INITRAMFS, KERNEL
from shared.contracts.vm import VbdSpec, VifSpec, VmSpec


def vm(name: str = "test", **fields: Any) -> VmSpec:
    """A direct-boot VM of the bundled guest, without devices."""
    id = fields.pop("uuid", None) or str(uuid.uuid4())
    settings: dict[str, Any] = {
        "ref": f"OpaqueRef:{id}",
        "name_label": name,
        "domain_type": "pvh",
        "memory_static_max": 128 * 2**20,
        "memory_dynamic_min": 128 * 2**20,
        "memory_dynamic_max": 128 * 2**20,
        "vcpus_max": 1,
        "vcpus_at_startup": 1,
        "pv_kernel": KERNEL,
        "pv_ramdisk": INITRAMFS,
        "pv_args": ARGS,
    }
    return VmSpec(uuid=id, **{**settings, **fields})


def disk(device: str = "0", **fields: Any) -> VbdSpec:
    settings: dict[str, Any] = {
        "mode": "RW",
        "type": "Disk",
        "bootable": True,
        "sr": "sr-1",
        "location": f"disk-{device}",
    }
    return VbdSpec(ref=f"OpaqueRef:vbd-{device}", uuid=f"vbd-{device}", device=device, **{**settings, **fields})


def empty_cd(device: str = "3") -> VbdSpec:
    return disk(device, mode="RO", type="CD", bootable=False, sr="", location="")


def vif(device: str = "0", **fields: Any) -> VifSpec:
    settings: dict[str, Any] = {"mac": "02:00:00:00:00:01", "bridge": "xapi0"}
    return VifSpec(ref=f"OpaqueRef:vif-{device}", uuid=f"vif-{device}", device=device, **{**settings, **fields})
