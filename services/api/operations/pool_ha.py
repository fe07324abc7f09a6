"""Messages of class pool about high availability, which cannot be enabled yet: plans without protected VMs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Update
from shared.errors import ApiError

PRIORITIES: Final = ("restart", "best-effort", "")
"""Values of `VM.ha_restart_priority`."""


@operation("pool.enable_ha", built=False)
def enable_ha(call: Call, heartbeat_srs: list[str], configuration: dict[str, str]) -> None:
    if call.api.pool()["ha_enabled"]:
        raise ApiError("HA_IS_ENABLED")
    candidates = heartbeat_srs or [ref for ref, sr in call.store.rows("SR").items() if sr["shared"]]
    for sr in candidates:
        existing(call.store, "SR", sr)
    if not candidates:
        raise ApiError("CANNOT_CREATE_STATE_FILE")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


def _require_ha(call: Call) -> None:
    if not call.api.pool()["ha_enabled"]:
        raise ApiError("HA_NOT_ENABLED")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("pool.disable_ha", built=False)
def disable_ha(call: Call) -> None:
    _require_ha(call)


@operation("host.emergency_ha_disable", built=False)
def emergency_ha_disable(call: Call, soft: bool) -> None:
    _require_ha(call)


@operation("host.ha_xapi_healthcheck")
def ha_xapi_healthcheck(call: Call) -> bool:
    """Whoever hears this answer knows that the API works."""
    return True


@operation("pool.ha_prevent_restarts_for")
def ha_prevent_restarts_for(call: Call, seconds: int) -> None:
    """Without HA nothing is restarted anyway."""
    if call.api.pool()["ha_enabled"]:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("pool.set_ha_host_failures_to_tolerate")
async def set_ha_host_failures_to_tolerate(call: Call, self: str, value: int) -> None:
    row = existing(call.store, "pool", self)
    if value < 0:
        raise ApiError("INVALID_VALUE", "ha_host_failures_to_tolerate", value)
    if row["ha_enabled"]:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
    await call.transact([Update(cls="pool", ref=self, fields={"ha_host_failures_to_tolerate": value})])


def _unprotected(call: Call) -> None:
    """Planning for protected VMs is not built yet."""
    vms = call.store.rows("VM").values()
    if any(_is_protected(vm) for vm in vms):
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} with protected VMs")


def _is_protected(vm: Mapping[str, Any]) -> bool:
    return bool(vm["ha_always_run"]) and vm["ha_restart_priority"] == "restart"


@operation("pool.ha_failover_plan_exists")
def ha_failover_plan_exists(call: Call, n: int) -> bool:
    _unprotected(call)
    return n <= len(call.store.rows("host"))


@operation("pool.ha_compute_max_host_failures_to_tolerate")
def ha_compute_max_host_failures_to_tolerate(call: Call) -> int:
    """With nothing to restart, every host may fail."""
    _unprotected(call)
    return len(call.store.rows("host"))


@operation("pool.ha_compute_hypothetical_max_host_failures_to_tolerate")
def ha_compute_hypothetical_max_host_failures_to_tolerate(call: Call, configuration: dict[str, str]) -> int:
    for priority in configuration.values():
        if priority not in PRIORITIES:
            raise ApiError("INVALID_VALUE", "ha_restart_priority", priority)
    protected = [vm for vm, priority in configuration.items() if priority == "restart"]
    for vm in protected:
        existing(call.store, "VM", vm)
    if protected:
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} with protected VMs")
    return len(call.store.rows("host"))


@operation("pool.ha_compute_vm_failover_plan")
def ha_compute_vm_failover_plan(
    call: Call, failed_hosts: list[str], failed_vms: list[str]
) -> dict[str, dict[str, str]]:
    for vm in failed_vms:
        existing(call.store, "VM", vm)
    if failed_vms:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
    return {}
