"""VM messages that change single settings. Those that a running VM's host would have to follow are refused while it
runs, where following is not built yet.
"""

from __future__ import annotations

import math
from typing import Any

from services.api.allowed import CHECKS, published
from services.api.call import Call
from services.api.decisions import bios, memory
from services.api.decisions.rows import existing
from services.api.decisions.vdi_types import incompatible
from services.api.decisions.vm_operations import bad_power_state
from services.api.operation import Lock, operation
from shared.contracts.db import Change, MapDrop, MapPut, Update
from shared.errors import ApiError
from shared.vm_defaults import GENERIC_BIOS_STRINGS


async def _update(call: Call, vm: str, fields: dict[str, Any]) -> None:
    existing(call.store, "VM", vm)
    changes: list[Change] = [Update(cls="VM", ref=vm, fields=fields)]
    await call.transact([*changes, *published(call.store, "VM", vm, changes)])


# ---- xenstore data


def _not_while_running(call: Call, vm: str) -> None:
    if existing(call.store, "VM", vm)["power_state"] in ("Running", "Paused"):
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} of a running VM")


@operation("VM.set_xenstore_data")
async def set_xenstore_data(call: Call, self: str, value: dict[str, str]) -> None:
    _not_while_running(call, self)
    await _update(call, self, {"xenstore_data": value})


@operation("VM.add_to_xenstore_data")
async def add_to_xenstore_data(call: Call, self: str, key: str, value: str) -> None:
    _not_while_running(call, self)
    if not key:
        raise ApiError("INTERNAL_ERROR", "Db_exn.Empty_key_in_map")
    await call.transact([MapPut(cls="VM", ref=self, field="xenstore_data", key=key, value=value, new=True)])


@operation("VM.remove_from_xenstore_data")
async def remove_from_xenstore_data(call: Call, self: str, key: str) -> None:
    _not_while_running(call, self)
    await call.transact([MapDrop(cls="VM", ref=self, field="xenstore_data", key=key)])


# ---- memory and CPUs: no back end has shadow memory, so its multiplier is a figure


def _check_multiplier(value: float) -> None:
    if not 1.0 <= value < math.inf:
        raise ApiError("INVALID_VALUE", "multiplier", f"{value:.15g}")


@operation("VM.set_HVM_shadow_multiplier", Lock("VM", "changing_shadow_memory"))
async def set_hvm_shadow_multiplier(call: Call, self: str, value: float) -> None:
    _check_multiplier(value)
    call.on_success.append(Update(cls="VM", ref=self, fields={"HVM_shadow_multiplier": value}))


@operation("VM.set_shadow_multiplier_live", Lock("VM", "changing_shadow_memory_live"))
async def set_shadow_multiplier_live(call: Call, self: str, multiplier: float) -> None:
    _check_multiplier(multiplier)
    call.on_success.append(Update(cls="VM", ref=self, fields={"HVM_shadow_multiplier": multiplier}))


@operation("VM.maximise_memory")
def maximise_memory(call: Call, self: str, total: int, approximate: bool) -> int:
    """The largest `memory_static_max` with which the VM takes no more than `total` bytes of its host."""
    return memory.largest(existing(call.store, "VM", self), total, approximate=approximate)


# ---- BIOS


@operation("VM.set_bios_strings")
async def set_bios_strings(call: Call, self: str, value: dict[str, str]) -> None:
    """What is left out is generic. They can be set once, and not any more when the VM has run."""
    row = existing(call.store, "VM", self)
    if row["bios_strings"]:
        raise ApiError("VM_BIOS_STRINGS_ALREADY_SET")
    refusal = bios.check(value)
    if refusal is not None:
        raise refusal
    await _update(call, self, {"bios_strings": {**GENERIC_BIOS_STRINGS, **value}})


@operation("VM.copy_bios_strings")
async def copy_bios_strings(call: Call, vm: str, host: str) -> None:
    """The VM shows the host's strings, and belongs on that host from here on."""
    strings = existing(call.store, "host", host)["bios_strings"]
    if existing(call.store, "VM", vm)["bios_strings"]:
        raise ApiError("VM_BIOS_STRINGS_ALREADY_SET")
    await _update(call, vm, {"bios_strings": dict(strings), "affinity": host})


@operation("VM.set_has_vendor_device")
async def set_has_vendor_device(call: Call, self: str, value: bool) -> None:
    row = existing(call.store, "VM", self)
    if row["power_state"] != "Halted":
        raise bad_power_state(self, ("Halted",), row["power_state"])
    await _update(call, self, {"has_vendor_device": value})


# ---- NVRAM: the host reads it at the start

_NVRAM = Lock("VM", "changing_NVRAM")


@operation("VM.set_NVRAM", _NVRAM)
async def set_nvram(call: Call, self: str, value: dict[str, str]) -> None:
    call.on_success.append(Update(cls="VM", ref=self, fields={"NVRAM": value}))


@operation("VM.add_to_NVRAM", _NVRAM)
async def add_to_nvram(call: Call, self: str, key: str, value: str) -> None:
    call.on_success.append(MapPut(cls="VM", ref=self, field="NVRAM", key=key, value=value, new=True))


@operation("VM.remove_from_NVRAM", _NVRAM)
async def remove_from_nvram(call: Call, self: str, key: str) -> None:
    call.on_success.append(MapDrop(cls="VM", ref=self, field="NVRAM", key=key))


# ---- belonging


@operation("VM.set_ha_always_run")
async def set_ha_always_run(call: Call, self: str, value: bool) -> None:
    await _update(call, self, {"ha_always_run": value})


@operation("VM.set_snapshot_schedule")
async def set_snapshot_schedule(call: Call, self: str, value: str) -> None:
    row = existing(call.store, "VM", self)
    if row["is_control_domain"] or row["is_a_template"] or row["is_a_snapshot"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "Control domains, templates and snapshots follow no schedule.")
    await _update(call, self, {"snapshot_schedule": value})


@operation("VM.set_groups")
async def set_groups(call: Call, self: str, value: list[str]) -> None:
    row = existing(call.store, "VM", self)
    if row["is_control_domain"] or row["is_a_template"] or row["is_a_snapshot"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "Control domains, templates and snapshots are in no group.")
    if len(value) > 1:
        raise ApiError("TOO_MANY_GROUPS")
    await _update(call, self, {"groups": value})


@operation("VM.set_suspend_VDI")
def set_suspend_vdi(call: Call, self: str, value: str) -> None:
    """Another disk with the same memory image, after disaster recovery. Comparing the two is not built yet."""
    row = existing(call.store, "VM", self)
    if row["power_state"] != "Suspended":
        raise bad_power_state(self, ("Suspended",), row["power_state"])
    disk = existing(call.store, "VDI", value)
    if disk["type"] == "cbt_metadata":
        raise incompatible(self, disk["type"])
    if row["suspend_VDI"] != value:
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} to another disk")


# ---- questions


@operation("VM.get_boot_record", Lock("VM", "get_boot_record"))
def get_boot_record(call: Call, self: str) -> dict[str, Any]:
    """The VM as it was started. Settings that wait for the next start are not kept apart: it is the VM as it is."""
    return dict(existing(call.store, "VM", self))


@operation("VM.get_cooperative")
def get_cooperative(call: Call, self: str) -> bool:
    """Whether the guest follows its memory target: QEMU's balloon always answers."""
    existing(call.store, "VM", self)
    return True


@operation("VM.assert_agile")
def assert_agile(call: Call, self: str) -> None:
    """Whether any host could run it: disks and networks are shared, nothing of one host is passed through."""
    row = existing(call.store, "VM", self)
    for ref in row["VBDs"]:
        vbd = existing(call.store, "VBD", ref)
        disk = call.store.row("VDI", vbd["VDI"])
        if disk is not None and not vbd["empty"] and not existing(call.store, "SR", disk["SR"])["shared"]:
            raise ApiError("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", disk["SR"])
    hosts = len(call.store.rows("host"))
    for ref in row["VIFs"]:
        network = existing(call.store, "VIF", ref)["network"]
        pifs = existing(call.store, "network", network)["PIFs"]
        on = {pif["host"] for pif in (call.store.row("PIF", one) for one in pifs) if pif and pif["currently_attached"]}
        if len(on) < hosts:
            raise ApiError("HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED", network)
    if row["VGPUs"]:
        raise ApiError("VM_HAS_VGPU", self)
    if row["VUSBs"]:
        raise ApiError("VM_HAS_VUSBS", self)
    if row["attached_PCIs"]:
        raise ApiError("VM_HAS_PCI_ATTACHED", self)


@operation("VM.set_memory_target_live", Lock("VM", "changing_memory_live"))
def set_memory_target_live(call: Call, self: str, target: int) -> None:
    """Answered, and without effect: ever since there is ballooning, the target follows from the dynamic range."""


def _checked(message: str, op: str) -> None:
    """Messages that nothing carries out, with the original neither."""

    @operation(message, built=False)
    def refuse(call: Call, vm: str, *arguments: Any) -> None:
        refusal = CHECKS["VM"](call.store, vm, op)
        if refusal is not None:
            raise refusal
        raise ApiError("NOT_IMPLEMENTED", message)


_checked("VM.send_sysrq", "send_sysrq")
_checked("VM.send_trigger", "send_trigger")
_checked("VM.query_services", "query_services")
_checked("VM.add_to_VCPUs_params_live", "changing_VCPUs_live")
