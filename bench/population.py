"""Rows of a large pool as its clients have made it: VMs with disks, interfaces, metrics, consoles, and all their maps.

Nothing runs: the rows go straight into a store or a database, so that ten thousand VMs are there in seconds. What they
say is what bundled templates, guest tools and well-known clients write, in about the sizes they write it.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any

from shared.contracts.db import Create
from shared.store import NULL

GIB = 1024**3
STAMP = "20250102T03:04:05Z"
ROWS_PER_VM = 7
"""VM, VM metrics, two VBDs, VDI, VIF; for every second one, as if it had run, guest metrics and a console."""

_PLATFORM = {
    "nx": "true",
    "acpi": "1",
    "apic": "true",
    "pae": "true",
    "hpet": "true",
    "viridian": "true",
    "secureboot": "false",
}
_RECOMMENDATIONS = (
    '<restrictions><restriction field="memory-static-max" max="137438953472"/>'
    '<restriction field="vcpus-max" max="32"/></restrictions>'
)
_HALTED = [
    "changing_dynamic_range",
    "changing_shadow_memory",
    "changing_static_range",
    "migrate_send",
    "make_into_template",
    "changing_VCPUs",
    "export",
    "start_on",
    "start",
    "clone",
    "copy",
    "snapshot",
    "changing_NVRAM",
    "destroy",
]


def creations(vms: int, *, network: str, sr: str, seed: int = 1, first: int = 0) -> Iterator[Create]:
    """One `Create` for every row of so many VMs, halted, each with its disk on that SR and its card on that network.

    `first`: number of the first one, which is in its name.
    """
    draw = random.Random(seed)
    for number in range(first, first + vms):
        yield from _machine(draw, number, network, sr)


def _machine(draw: random.Random, number: int, network: str, sr: str) -> Iterator[Create]:
    vm, vdi, metrics = _ref(draw), _ref(draw), _ref(draw)
    name, memory, cpus = f"vm-{number:05d}", draw.choice((1, 2, 4, 8)) * GIB, draw.choice((1, 2, 4))
    guest = NULL
    if number % 2:
        guest = _ref(draw)
        yield _guest_metrics(draw, guest, number)
        place = f"https://127.0.0.11/console?uuid={uuid.UUID(int=draw.getrandbits(128))}"
        yield _row(draw, "console", _ref(draw), protocol="rfb", location=place, VM=vm, port=-1)
    yield _row(draw, "VM_metrics", metrics, **_vm_metrics(memory, cpus))
    yield _row(draw, "VM", vm, **_vm(draw, name, memory, cpus), metrics=metrics, guest_metrics=guest)
    yield _row(draw, "VDI", vdi, **_vdi(draw, name, sr))
    for device, kind, disk in (("0", "Disk", vdi), ("3", "CD", NULL)):
        yield _row(draw, "VBD", _ref(draw), **_vbd(device, kind, disk), VM=vm)
    yield _row(draw, "VIF", _ref(draw), **_vif(draw), VM=vm, network=network)


def _ref(draw: random.Random) -> str:
    return f"OpaqueRef:{uuid.UUID(int=draw.getrandbits(128), version=4)}"


def _row(draw: random.Random, cls: str, ref: str, **fields: Any) -> Create:
    return Create(cls=cls, ref=ref, fields={"uuid": str(uuid.UUID(int=draw.getrandbits(128), version=4)), **fields})


def _vm(draw: random.Random, name: str, memory: int, cpus: int) -> dict[str, Any]:
    return {
        "name_label": name,
        "name_description": f"Created by the deployment tool for team {draw.randrange(40)} & friends",
        "allowed_operations": list(_HALTED),
        "user_version": 1,
        "memory_static_max": memory,
        "memory_dynamic_max": memory,
        "memory_dynamic_min": memory,
        "memory_static_min": GIB // 2,
        "memory_target": memory,
        "VCPUs_params": {"weight": "256", "cap": "0"},
        "VCPUs_max": cpus,
        "VCPUs_at_startup": cpus,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"firmware": "uefi", "order": "cdn"},
        "platform": dict(_PLATFORM),
        "other_config": {
            "mac_seed": str(uuid.UUID(int=draw.getrandbits(128))),
            "base_template_name": "Debian Bookworm 12",
            "linux_template": "true",
            "auto_poweron": "false",
            "XenCenter.CustomFields.owner": f"team{draw.randrange(40)}",
        },
        "domarch": "x86_64",
        "recommendations": _RECOMMENDATIONS,
        "xenstore_data": {"vm-data": "", "vm-data/hostname": name},
        "tags": [f"team{draw.randrange(40)}", draw.choice(("production", "staging"))],
        "generation_id": f"{draw.getrandbits(63)}:{draw.getrandbits(63)}",
        "has_vendor_device": False,
        "reference_label": "debian-12",
        "domain_type": "hvm",
    }


def _vm_metrics(memory: int, cpus: int) -> dict[str, Any]:
    return {
        "memory_actual": memory,
        "VCPUs_number": cpus,
        "VCPUs_params": {"weight": "256", "cap": "0"},
        "start_time": STAMP,
        "install_time": STAMP,
        "last_updated": STAMP,
        "hvm": True,
        "current_domain_type": "hvm",
    }


def _guest_metrics(draw: random.Random, ref: str, number: int) -> Create:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return _row(
        draw,
        "VM_guest_metrics",
        ref,
        os_version={"name": "Debian GNU/Linux 12 (bookworm)", "distro": "debian", "major": "12", "uname": "6.1.0-18"},
        PV_drivers_version={"major": "8", "minor": "4", "micro": "0", "build": "1"},
        PV_drivers_up_to_date=True,
        PV_drivers_detected=True,
        networks={"0/ip": address, "0/ipv4/0": address, "0/ipv6/0": f"fe80::{number:x}"},
        other={"feature-balloon": "1", "feature-suspend": "1", "feature-poweroff": "1", "data-ts": "1"},
        last_updated=STAMP,
        live=True,
        can_use_hotplug_vbd="yes",
        can_use_hotplug_vif="yes",
    )


def _vdi(draw: random.Random, name: str, sr: str) -> dict[str, Any]:
    size = draw.choice((10, 20, 50)) * GIB
    return {
        "name_label": f"{name} disk 0",
        "name_description": "Created by template provisioner",
        "allowed_operations": ["clone", "copy", "destroy", "resize", "snapshot", "update"],
        "SR": sr,
        "virtual_size": size,
        "physical_utilisation": size // draw.randrange(2, 9),
        "type": "user",
        "location": str(uuid.UUID(int=draw.getrandbits(128))),
        "managed": True,
        "sm_config": {"image-format": "vhd", "vhd-parent": str(uuid.UUID(int=draw.getrandbits(128)))},
    }


def _vbd(device: str, kind: str, disk: str) -> dict[str, Any]:
    return {
        "allowed_operations": ["attach", "insert"] if kind == "CD" else ["attach", "unpause", "pause"],
        "VDI": disk,
        "device": "",
        "userdevice": device,
        "bootable": kind == "Disk",
        "mode": "RO" if kind == "CD" else "RW",
        "type": kind,
        "unpluggable": kind == "Disk",
        "empty": kind == "CD",
        "other_config": {"owner": ""} if kind == "Disk" else {},
    }


def _vif(draw: random.Random) -> dict[str, Any]:
    return {
        "allowed_operations": ["attach"],
        "device": "0",
        "MAC": ":".join(f"{draw.randrange(256):02x}" for _ in range(6)),
        "MTU": 1500,
        "MAC_autogenerated": True,
        "locking_mode": "network_default",
        "other_config": {"promiscuous": "off"},
    }
