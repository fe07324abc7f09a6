"""Messages of class host about evacuating, restarting and removing hosts."""

from __future__ import annotations

from typing import Any

from services.api import vm_state
from services.api.allowed import CHECKS
from services.api.call import Call
from services.api.decisions.evacuation import obstacles
from services.api.decisions.liveness import is_live, require_live
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Update
from shared.errors import ApiError


@operation("host.get_vms_which_prevent_evacuation")
def get_vms_which_prevent_evacuation(call: Call, self: str) -> dict[str, list[str]]:
    return {vm: reason.description for vm, reason in obstacles(call.store, self).items()}


@operation("host.assert_can_evacuate")
def assert_can_evacuate(call: Call, host: str) -> None:
    reasons = [",".join(reason.description) for reason in obstacles(call.store, host).values()]
    if reasons:
        raise ApiError("CANNOT_EVACUATE_HOST", "|".join(reasons))


@operation("host.evacuate")
def evacuate(call: Call, host: str, *options: Any) -> None:
    """A host without VMs is evacuated."""
    for reason in obstacles(call.store, host).values():
        raise reason


def _allowed_first(name: str) -> None:
    @operation(f"host.{name}", built=False)
    def refuse(call: Call, host: str) -> None:
        refusal = CHECKS["host"](call.store, host, name)
        if refusal is not None:
            raise refusal
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


for _name in ("shutdown", "reboot"):
    _allowed_first(_name)


@operation("host.power_on", built=False)
def power_on(call: Call, host: str) -> None:
    """A plug-in wakes hosts; none is there."""
    refusal = CHECKS["host"](call.store, host, "power_on")
    if refusal is not None:
        raise refusal
    raise ApiError("XENAPI_MISSING_PLUGIN", "power-on-host")


@operation("host.set_power_on_mode")
async def set_power_on_mode(call: Call, self: str, power_on_mode: str, power_on_config: dict[str, str]) -> None:
    existing(call.store, "host", self)
    fields = {"power_on_mode": power_on_mode, "power_on_config": power_on_config}
    await call.transact([Update(cls="host", ref=self, fields=fields)])


def _require_dead(call: Call, host: str) -> None:
    existing(call.store, "host", host)
    if is_live(call.store, host):
        raise ApiError("HOST_IS_LIVE", host)


@operation("host.declare_dead")
def declare_dead(call: Call, host: str) -> None:
    """Its VMs are halted, whoever says so answers for it."""
    _require_dead(call, host)
    for vm in existing(call.store, "host", host)["resident_VMs"]:
        if not existing(call.store, "VM", vm)["is_control_domain"]:
            call.on_success += vm_state.halted(call.store, vm)


@operation("host.destroy", built=False)
def destroy(call: Call, self: str) -> None:
    _require_dead(call, self)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("host.enable_local_storage_caching", built=False)
def enable_local_storage_caching(call: Call, host: str, sr: str) -> None:
    require_live(call.store, host)
    if existing(call.store, "host", host)["enabled"]:
        raise ApiError("HOST_NOT_DISABLED")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("pool.enable_local_storage_caching", built=False)
def enable_pool_caching(call: Call, self: str) -> None:
    """Each host has to be disabled for that."""
    existing(call.store, "pool", self)
    failed = [ref for ref, host in call.store.rows("host").items() if host["enabled"]]
    if failed:
        raise ApiError("HOSTS_FAILED_TO_ENABLE_CACHING", ",".join(failed))
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
