"""What VM.create and VM.clone write, and what a VM gets before it starts (vm-lifecycle 1.6).

New references and uuids come from the caller (`fresh` makes a uuid), so the result depends on the arguments alone.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Container, Mapping
from typing import Any, Final

from services.api.decisions import boot, memory, vtpms
from services.api.decisions.device_metrics import with_metrics
from services.api.decisions.fresh import Fresh, ref_of
from services.api.decisions.rows import NULL, Record, Rows, existing, is_null
from services.api.decisions.vif_records import mac_from_seed
from shared.contracts.db import Change, Create, Row
from shared.datamodel import model
from shared.errors import ApiError
from shared.vm_defaults import GENERIC_BIOS_STRINGS

EPOCH: Final = "19700101T00:00:00Z"

NEEDED_WHEN_SUSPENDED: Final = ("last_boot_CPU_flags", "last_booted_record", "suspend_VDI")

VENDOR_DEVICE_PLATFORM: Final = 2
"""The lowest hardware platform version that has the vendor device."""

SETTABLE: Final = frozenset(
    name for name, field in model.classes["VM"].fields.items() if field.qualifier in ("RW", "RO/constructor")
) - {"blocked_operations"}
"""What a caller of VM.create may say; the rest is ignored."""

COPIED: Final = (
    "name_description",
    "user_version",
    "is_a_template",
    "affinity",
    "memory_overhead",
    "memory_target",
    "memory_static_max",
    "memory_dynamic_max",
    "memory_dynamic_min",
    "memory_static_min",
    "VCPUs_params",
    "VCPUs_max",
    "VCPUs_at_startup",
    "actions_after_softreboot",
    "actions_after_shutdown",
    "actions_after_reboot",
    "actions_after_crash",
    "PV_bootloader",
    "PV_kernel",
    "PV_ramdisk",
    "PV_args",
    "PV_bootloader_args",
    "PV_legacy_args",
    "HVM_boot_policy",
    "HVM_boot_params",
    "HVM_shadow_multiplier",
    "platform",
    "PCI_bus",
    "domarch",
    "last_boot_CPU_flags",
    "last_booted_record",
    "recommendations",
    "xenstore_data",
    "ha_restart_priority",
    "tags",
    "bios_strings",
    "hardware_platform_version",
    "has_vendor_device",
    "reference_label",
    "domain_type",
    "NVRAM",
)
"""Fields of a VM that a clone takes over; all others start as in a new VM."""

FORGOTTEN_CONFIG: Final = frozenset({"default_template", "xensource_internal"})

VBD_COPIED: Final = (
    "userdevice",
    "bootable",
    "mode",
    "type",
    "unpluggable",
    "empty",
    "qos_algorithm_type",
    "qos_algorithm_params",
)
VIF_COPIED: Final = (
    "device",
    "network",
    "MTU",
    "other_config",
    "qos_algorithm_type",
    "qos_algorithm_params",
    "locking_mode",
    "ipv4_allowed",
    "ipv6_allowed",
    "trunks",
)
VGPU_COPIED: Final = ("GPU_group", "device", "other_config", "type", "compatibility_metadata")
GUEST_METRICS_COPIED: Final = (
    "os_version",
    "netbios_name",
    "PV_drivers_version",
    "PV_drivers_up_to_date",
    "networks",
    "other",
    "other_config",
    "live",
    "can_use_hotplug_vbd",
    "can_use_hotplug_vif",
    "PV_drivers_detected",
    "services",
)


def default_domain_type(hvm_boot_policy: str) -> str:
    return "hvm" if hvm_boot_policy else "pv"


def fresh_generation_id(like: str, fresh: Fresh) -> str:
    """Two signed 64-bit numbers that no other VM has; a VM without one stays without."""
    if like == "":
        return ""
    high, low = uuids.UUID(fresh()).bytes[:8], uuids.UUID(fresh()).bytes[8:]
    return f"{int.from_bytes(high, signed=True)}:{int.from_bytes(low, signed=True)}"


def created(ref: str, args: Record, fresh: Fresh) -> list[Change]:
    """VM.create: the rows of the VM and its metrics. `args`: the constructor's fields, checked for type.

    Raises VM_BAD_POWER_STATE for a suspended VM without what it takes to resume.
    """
    power_state = "Suspended" if args.get("power_state") == "Suspended" else "Halted"
    if power_state == "Suspended" and not all(_given(args.get(name)) for name in NEEDED_WHEN_SUSPENDED):
        raise ApiError("VM_BAD_POWER_STATE", ref, "halted", "suspended")
    metrics_uuid = fresh()
    domain_type = args.get("domain_type", "unspecified")
    if domain_type == "unspecified":
        domain_type = default_domain_type(args.get("HVM_boot_policy", ""))
    fields: Row = {
        **{name: value for name, value in args.items() if name in SETTABLE},
        "uuid": fresh(),
        "power_state": power_state,
        "domain_type": domain_type,
        "other_config": {"mac_seed": fresh(), **args.get("other_config", {})},
        "hardware_platform_version": _platform_version(args),
        "metrics": ref_of(metrics_uuid),
        "guest_metrics": NULL,
        "resident_on": NULL,
        "scheduled_to_be_resident_on": NULL,
        "domid": -1,
    }
    fields["memory_overhead"] = memory.overhead({"platform": {}, **fields})
    metrics = _metrics(metrics_uuid, domain_type if power_state == "Suspended" else "unspecified")
    return [metrics, Create(cls="VM", ref=ref, fields=fields)]


def _given(value: Any) -> bool:
    return bool(value) and value != NULL


def _platform_version(args: Record) -> int:
    asked: int = args.get("hardware_platform_version", 0)
    return max(asked, VENDOR_DEVICE_PLATFORM) if args.get("has_vendor_device", True) else asked


def _metrics(uuid: str, domain_type: str, like: Record | None = None) -> Create:
    fields: Row = {
        "start_time": EPOCH,
        "install_time": EPOCH,
        "last_updated": EPOCH,
        **({} if like is None else like),
        "uuid": uuid,
        "current_domain_type": domain_type,
    }
    return Create(cls="VM_metrics", ref=ref_of(uuid), fields=fields)


def cloned(
    rows: Rows,
    source: str,
    ref: str,
    name_label: str,
    disks: Mapping[str, str],
    fresh: Fresh,
    *,
    suspend_vdi: str = NULL,
    macs: bool = False,
    without: Container[str] = (),
) -> list[Change]:
    """VM.clone and VM.copy, once the disks are there: the rows of the new VM `ref`, its metrics, VBDs and VIFs.

    `disks`: VBD of the source -> the new VM's copy of its disk; drives not named share what the source has, those
    in `without` are left out. `macs`: it keeps the source's addresses, and the seed that others are made from.
    The new VM is suspended if `suspend_vdi` is given, else halted. Raises HANDLE_INVALID.
    """
    vm = existing(rows, "VM", source)
    seed = vm["other_config"].get("mac_seed", "") if macs else fresh()
    halted = is_null(suspend_vdi)
    metrics_uuid = fresh()
    domain_type = "unspecified" if halted else vm["domain_type"]
    changes: list[Change] = [_metrics(metrics_uuid, domain_type, rows.row("VM_metrics", vm["metrics"]))]
    guest_metrics = NULL
    if (guest := rows.row("VM_guest_metrics", vm["guest_metrics"])) is not None:
        guest_uuid = fresh()
        guest_metrics = ref_of(guest_uuid)
        kept = {"uuid": guest_uuid, **{name: guest[name] for name in GUEST_METRICS_COPIED}}
        changes.append(Create(cls="VM_guest_metrics", ref=guest_metrics, fields=kept))
    fields: Row = {
        **{name: vm[name] for name in COPIED},
        "uuid": fresh(),
        "name_label": name_label,
        "power_state": "Halted" if halted else "Suspended",
        "suspend_VDI": suspend_vdi,
        "other_config": _cloned_config(vm, seed),
        "is_default_template": False,
        "parent": NULL,
        "ha_always_run": False,
        "generation_id": fresh_generation_id(vm["generation_id"], fresh),
        "metrics": ref_of(metrics_uuid),
        "guest_metrics": guest_metrics,
        "resident_on": NULL,
        "scheduled_to_be_resident_on": NULL,
        "domid": -1,
    }
    changes.append(Create(cls="VM", ref=ref, fields=fields))
    changes += _devices(rows, vm, ref, disks, fresh, "" if macs else seed, halted, without)
    return changes


def devices(rows: Rows, source: Record, vm: str, disks: Mapping[str, str], fresh: Fresh) -> list[Change]:
    """VBDs and VIFs like the source's for another, halted VM, with their addresses. `disks` as in `cloned`."""
    return _devices(rows, source, vm, disks, fresh, "", True, ())


def _devices(
    rows: Rows,
    source: Record,
    vm: str,
    disks: Mapping[str, str],
    fresh: Fresh,
    seed: str,
    halted: bool,
    without: Container[str],
) -> list[Change]:
    changes: list[Change] = []
    for ref in source["VBDs"]:
        if ref not in without:
            vbd = _cloned_vbd(existing(rows, "VBD", ref), disks.get(ref), vm, fresh(), halted)
            changes += with_metrics("VBD", vbd, fresh(), EPOCH)
    for ref in source["VIFs"]:
        vif = _cloned_vif(existing(rows, "VIF", ref), vm, fresh(), seed, halted)
        changes += with_metrics("VIF", vif, fresh(), EPOCH)
    for ref in source["VGPUs"]:
        changes.append(_cloned_vgpu(existing(rows, "VGPU", ref), vm, fresh()))
    for ref in source["VTPMs"]:
        changes += vtpms.copied(rows, ref, vm, fresh)
    return changes


def _cloned_config(vm: Record, seed: str) -> dict[str, str]:
    config = {key: value for key, value in vm["other_config"].items() if key not in FORGOTTEN_CONFIG}
    if vm["is_a_template"] and not vm["is_a_snapshot"]:
        config.setdefault("base_template_name", vm["name_label"])
    return {**config, "mac_seed": seed} if seed else config


def _cloned_vbd(vbd: Record, disk: str | None, vm: str, uuid: str, halted: bool) -> Create:
    """A copied disk belongs to the new VM alone (`owner`): whoever deletes the VM may delete it too."""
    config = dict(vbd["other_config"])
    if disk is not None:
        config["owner"] = ""
    fields: Row = {
        **{name: vbd[name] for name in VBD_COPIED},
        "uuid": uuid,
        "VM": vm,
        "VDI": vbd["VDI"] if disk is None else disk,
        "other_config": config,
        "device": "" if halted else vbd["device"],
        "currently_attached": not halted and vbd["currently_attached"],
    }
    return Create(cls="VBD", ref=ref_of(uuid), fields=fields)


def _cloned_vif(vif: Record, vm: str, uuid: str, seed: str, halted: bool) -> Create:
    """`seed`: what its address is made from; "" keeps the address."""
    fields: Row = {
        **{name: vif[name] for name in VIF_COPIED},
        "uuid": uuid,
        "VM": vm,
        "MAC": mac_from_seed(seed, int(vif["device"])) if seed else vif["MAC"],
        "MAC_autogenerated": bool(seed) or vif["MAC_autogenerated"],
        "currently_attached": not halted and vif["currently_attached"],
    }
    return Create(cls="VIF", ref=ref_of(uuid), fields=fields)


def _cloned_vgpu(vgpu: Record, vm: str, uuid: str) -> Create:
    fields: Row = {**{name: vgpu[name] for name in VGPU_COPIED}, "uuid": uuid, "VM": vm}
    return Create(cls="VGPU", ref=ref_of(uuid), fields=fields)


def prepared_for_start(vm: Record) -> Row:
    """Fields that VM.start settles before it chooses a host: domain type, overhead, BIOS strings, machine.

    Raises INVALID_VALUE for a firmware that there is not.
    """
    domain_type = vm["domain_type"]
    if domain_type == "unspecified":
        domain_type = default_domain_type(vm["HVM_boot_policy"])
    typed = {**vm, "domain_type": domain_type}
    refusal = boot.check(typed)
    if refusal is not None:
        raise refusal
    return {
        "domain_type": domain_type,
        "memory_overhead": memory.overhead(typed),
        "bios_strings": vm["bios_strings"] or GENERIC_BIOS_STRINGS,
        "platform": boot.platform(typed),
    }


def booted_on(host: Record) -> Row:
    """What a VM remembers of the host that it was started on."""
    cpus = host["cpu_info"]
    return {"last_boot_CPU_flags": {"vendor": cpus.get("vendor", ""), "features": cpus.get("features_hvm", "")}}
