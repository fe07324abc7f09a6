"""Messages about hosts that come into the pool's rows and leave them."""

from __future__ import annotations

import logging
import uuid as uuids
from typing import Any

from services.api import clock, vm_state
from services.api.call import Call, new_ref
from services.api.decisions.host_removal import removal
from services.api.decisions.liveness import is_live
from services.api.decisions.rows import existing
from services.api.on_hosts import live_hosts
from services.api.operation import operation
from shared.bus.contract import Empty
from shared.bus.interface import BusError
from shared.contracts import storage
from shared.contracts.db import Create, Update
from shared.contracts.service import ping
from shared.errors import ApiError

log = logging.getLogger("api.hosts")


def _require_dead(call: Call, host: str) -> None:
    existing(call.store, "host", host)
    if is_live(call.store, host):
        raise ApiError("HOST_IS_LIVE", host)


async def _fence(call: Call, host: str) -> None:
    """Whoever says that the host is dead answers for it: its disks are free for others."""
    fence = storage.Fence(host=call.api.uuid_of("host", host))
    for other in live_hosts(call):
        try:
            await call.api.bus.call(storage.FENCE, fence, host=call.api.uuid_of("host", other))
        except BusError as error:  # it asks the disks themselves when it needs them
            log.warning("host %s has not forgotten the leases of %s: %s", other, host, error)


@operation("host.declare_dead")
async def declare_dead(call: Call, host: str) -> None:
    """Its VMs are halted."""
    _require_dead(call, host)
    await _fence(call, host)
    for vm in existing(call.store, "host", host)["resident_VMs"]:
        if not existing(call.store, "VM", vm)["is_control_domain"]:
            call.on_success += vm_state.halted(call.store, vm)


@operation("host.destroy")
async def destroy(call: Call, self: str) -> None:
    """A dead host is forgotten, with its interfaces, connections, and SRs that only it could reach."""
    _require_dead(call, self)
    if call.api.pool()["ha_enabled"]:
        raise ApiError("HA_IS_ENABLED")
    if self == call.api.pool()["master"]:
        raise ApiError("HOST_CANNOT_DESTROY_SELF", self)
    for vm in existing(call.store, "host", self)["resident_VMs"]:
        if not existing(call.store, "VM", vm)["is_control_domain"]:
            raise ApiError("HOST_HAS_RESIDENT_VMS", self)
    await _fence(call, self)
    await call.transact(removal(call.store, self))


@operation("host.create")
async def create(call: Call, *values: Any) -> str:
    """The rows of a host that is joining. It is live when its heartbeats begin."""
    names = [param.name for param in call.message.params]
    fields = dict(zip(names, values, strict=False))
    if call.store.ref_of_uuid("host", fields["uuid"]) is not None:
        raise ApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "host", "uuid", fields["uuid"])
    master = existing(call.store, "host", call.api.pool()["master"])
    like_master = ("API_version_major", "API_version_minor", "API_version_vendor", "sched_policy")
    fields |= {name: master[name] for name in (*like_master, "virtual_hardware_platform_versions")}
    ref, metrics = new_ref(), new_ref()
    alive = {"uuid": str(uuids.uuid4()), "live": False, "last_updated": clock.now()}
    await call.transact(
        [
            Create(cls="host_metrics", ref=metrics, fields={**alive, "memory_total": 0, "memory_free": 0}),
            Create(cls="host", ref=ref, fields={**fields, "enabled": False, "metrics": metrics, "other_config": {}}),
        ]
    )
    return ref


@operation("pool.hello")
async def hello(call: Call, host_uuid: str, host_address: str) -> str:
    """What the coordinator says to a member that starts: whether it knows it and can reach it."""
    ref = call.store.ref_of_uuid("host", host_uuid)
    if ref is None:
        return "unknown_host"
    try:
        await call.api.bus.call(ping("api", storage.FENCE.scope), Empty(), host=host_uuid)
    except BusError:
        return "cannot_talk_back"
    if host_address and existing(call.store, "host", ref)["address"] != host_address:
        await call.transact([Update(cls="host", ref=ref, fields={"address": host_address})])
    return "ok"
