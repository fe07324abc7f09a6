"""VM messages that change how a VM is configured, with the checks that a plain field write lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from services.api.allowed import CHECKS, published
from services.api.call import Call
from services.api.decisions import memory, vm_records
from services.api.decisions.rows import existing, is_null
from services.api.operation import Lock, operation
from services.api.operations.pool_ha import PRIORITIES
from shared.contracts.db import Change, Delete, MapDrop, MapPut, Update
from shared.errors import ApiError
from shared.store import NULL


async def _update(call: Call, vm: str, fields: Mapping[str, Any], more: list[Change] | None = None) -> None:
    await _write(call, vm, Update(cls="VM", ref=vm, fields=dict(fields)), *(more or []))


async def _write(call: Call, vm: str, *changes: Change) -> None:
    """With what the VM allows then."""
    await call.transact([*changes, *published(call.store, "VM", vm, changes)])


# ---- memory


async def _set_memory(call: Call, vm: str, **limits: int) -> None:
    """Writes limits that are in order together with those that stay, and the overhead that goes with them."""
    row = existing(call.store, "VM", vm)
    fields = {f"memory_{name}": value for name, value in limits.items()}
    wanted = {**row, **fields}
    refusal = memory.check_constraints(wanted)
    if refusal is not None:
        raise refusal
    call.on_success.append(Update(cls="VM", ref=vm, fields={**fields, "memory_overhead": memory.overhead(wanted)}))


_STATIC = Lock("VM", "changing_static_range")
_DYNAMIC = Lock("VM", "changing_dynamic_range")
_LIMITS = Lock("VM", "changing_memory_limits")


@operation("VM.set_memory_static_max", _STATIC)
async def set_memory_static_max(call: Call, self: str, value: int) -> None:
    await _set_memory(call, self, static_max=value)


@operation("VM.set_memory_static_min", _STATIC)
async def set_memory_static_min(call: Call, self: str, value: int) -> None:
    await _set_memory(call, self, static_min=value)


@operation("VM.set_memory_static_range", _STATIC)
async def set_memory_static_range(call: Call, self: str, min: int, max: int) -> None:
    await _set_memory(call, self, static_min=min, static_max=max)


def _without_ballooning(call: Call, vm: str, **limits: int) -> None:
    """Ballooning a running VM is its host's work, which is not built yet: only what leaves its target is possible."""
    row = existing(call.store, "VM", vm)
    low, high = (limits.get(name, row[f"memory_{name}"]) for name in ("dynamic_min", "dynamic_max"))
    if row["power_state"] == "Running" and (low, high) != (row["memory_dynamic_min"], row["memory_dynamic_max"]):
        raise ApiError("NOT_IMPLEMENTED", "VM.set_memory_dynamic_range of a running VM")


@operation("VM.set_memory_dynamic_max", _DYNAMIC)
async def set_memory_dynamic_max(call: Call, self: str, value: int) -> None:
    _without_ballooning(call, self, dynamic_max=value)
    await _set_memory(call, self, dynamic_max=value)


@operation("VM.set_memory_dynamic_min", _DYNAMIC)
async def set_memory_dynamic_min(call: Call, self: str, value: int) -> None:
    _without_ballooning(call, self, dynamic_min=value)
    await _set_memory(call, self, dynamic_min=value)


@operation("VM.set_memory_dynamic_range", _DYNAMIC)
async def set_memory_dynamic_range(call: Call, self: str, min: int, max: int) -> None:
    _without_ballooning(call, self, dynamic_min=min, dynamic_max=max)
    await _set_memory(call, self, dynamic_min=min, dynamic_max=max)


@operation("VM.set_memory_limits", _LIMITS)
async def set_memory_limits(
    call: Call, self: str, static_min: int, static_max: int, dynamic_min: int, dynamic_max: int
) -> None:
    await _set_memory(
        call, self, static_min=static_min, static_max=static_max, dynamic_min=dynamic_min, dynamic_max=dynamic_max
    )


@operation("VM.set_memory", _LIMITS)
async def set_memory(call: Call, self: str, value: int) -> None:
    await _set_memory(call, self, static_max=value, dynamic_min=value, dynamic_max=value)


@operation("VM.compute_memory_overhead")
def compute_memory_overhead(call: Call, vm: str) -> int:
    return memory.overhead(existing(call.store, "VM", vm))


# ---- VCPUs

_VCPUS = Lock("VM", "changing_VCPUs")
VCPU_RULE: Final = "VCPU values must satisfy: 0 < VCPUs_at_startup \u2264 VCPUs_max"
"""What INVALID_VALUE names: clients compare it as it is."""


@operation("VM.set_VCPUs_max", _VCPUS)
async def set_vcpus_max(call: Call, self: str, value: int) -> None:
    row = existing(call.store, "VM", self)
    if value < max(1, row["VCPUs_at_startup"]):
        raise ApiError("INVALID_VALUE", VCPU_RULE, value)
    overhead = memory.overhead({**row, "VCPUs_max": value})
    call.on_success.append(Update(cls="VM", ref=self, fields={"VCPUs_max": value, "memory_overhead": overhead}))


@operation("VM.set_VCPUs_at_startup", _VCPUS)
async def set_vcpus_at_startup(call: Call, self: str, value: int) -> None:
    if not 1 <= value <= existing(call.store, "VM", self)["VCPUs_max"]:
        raise ApiError("INVALID_VALUE", VCPU_RULE, value)
    call.on_success.append(Update(cls="VM", ref=self, fields={"VCPUs_at_startup": value}))


# ---- templates


@operation("VM.set_is_a_template")
async def set_is_a_template(call: Call, self: str, value: bool) -> None:
    row = existing(call.store, "VM", self)
    if row["is_a_template"] == value:
        return
    if not value:
        await _update(call, self, {"is_a_template": False})
        return
    refusal = CHECKS["VM"](call.store, self, "make_into_template")
    if refusal is not None:
        raise refusal
    if row["ha_restart_priority"] == "restart" and row["ha_always_run"]:
        raise ApiError("VM_IS_PROTECTED", self)
    gone: list[Change] = [Delete(cls="VUSB", ref=ref) for ref in row["VUSBs"]]
    if not is_null(row["metrics"]):
        gone.append(Delete(cls="VM_metrics", ref=row["metrics"]))
    fields = {"is_a_template": True, "ha_always_run": False, "metrics": NULL, "groups": []}
    await _update(call, self, fields, gone)


@operation("VM.set_is_default_template")
async def set_is_default_template(call: Call, vm: str, value: bool) -> None:
    config = {**existing(call.store, "VM", vm)["other_config"], "default_template": "true"}
    if not value:
        del config["default_template"]
    await _update(call, vm, {"is_default_template": value, "other_config": config})


# ---- maps with checks of their own


def _map_messages(field: str) -> None:
    """set_, add_to_ and remove_from_ of a map of the VM."""

    @operation(f"VM.set_{field}")
    async def set_map(call: Call, self: str, value: dict[str, str]) -> None:
        existing(call.store, "VM", self)
        await _update(call, self, {field: value})

    @operation(f"VM.add_to_{field}")
    async def add(call: Call, self: str, key: str, value: str) -> None:
        existing(call.store, "VM", self)
        if not key:
            raise ApiError("INTERNAL_ERROR", "Db_exn.Empty_key_in_map")
        await _write(call, self, MapPut(cls="VM", ref=self, field=field, key=key, value=value, new=True))

    @operation(f"VM.remove_from_{field}")
    async def remove(call: Call, self: str, key: str) -> None:
        existing(call.store, "VM", self)
        await _write(call, self, MapDrop(cls="VM", ref=self, field=field, key=key))


for _field in ("other_config", "platform", "blocked_operations"):
    _map_messages(_field)


# ---- others


@operation("VM.assert_operation_valid")
def assert_operation_valid(call: Call, self: str, op: str) -> None:
    refusal = CHECKS["VM"](call.store, self, op)
    if refusal is not None:
        raise refusal


@operation("VM.update_allowed_operations")
async def update_allowed_operations(call: Call, self: str) -> None:
    row = existing(call.store, "VM", self)
    changes: list[Change] = []
    for cls in ("VBD", "VIF"):
        for ref in row[cls + "s"]:
            changes += published(call.store, cls, ref, ())
    await call.transact([*changes, *published(call.store, "VM", self, changes)])


@operation("VM.set_domain_type")
async def set_domain_type(call: Call, self: str, value: str) -> None:
    """The boot policy follows: "BIOS order" for hvm, none for the others."""
    if value == "unspecified":
        raise ApiError("INVALID_VALUE", "domain_type", value)
    existing(call.store, "VM", self)
    policy = "BIOS order" if value == "hvm" else ""
    await _update(call, self, {"domain_type": value, "HVM_boot_policy": policy})


@operation("VM.set_HVM_boot_policy")
async def set_hvm_boot_policy(call: Call, self: str, value: str) -> None:
    existing(call.store, "VM", self)
    domain_type = vm_records.default_domain_type(value)
    await _update(call, self, {"HVM_boot_policy": value, "domain_type": domain_type})


@operation("VM.set_actions_after_crash")
async def set_actions_after_crash(call: Call, self: str, value: str) -> None:
    existing(call.store, "VM", self)
    await _update(call, self, {"actions_after_crash": value})


def _not_negative(field: str) -> Callable[..., Any]:
    @operation(f"VM.set_{field}")
    async def set_field(call: Call, self: str, value: int) -> None:
        existing(call.store, "VM", self)
        if value < 0:
            raise ApiError("INVALID_VALUE", f"{field} must be non-negative", value)
        await _update(call, self, {field: value})

    return set_field


for _name in ("start_delay", "shutdown_delay", "order"):
    _not_negative(_name)


@operation("VM.set_ha_restart_priority")
async def set_ha_restart_priority(call: Call, self: str, value: str) -> None:
    if value not in PRIORITIES:
        raise ApiError("INVALID_VALUE", "ha_restart_priority", value)
    running = existing(call.store, "VM", self)["power_state"] in ("Running", "Paused")
    fields: dict[str, Any] = {"ha_restart_priority": value}
    if value == "restart" and running:
        fields["ha_always_run"] = True
    await _update(call, self, fields)
