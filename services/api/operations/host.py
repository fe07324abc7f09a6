"""Messages of class host."""

from __future__ import annotations

from services.api.allowed import published
from services.api.call import Call
from services.api.decisions import memory
from services.api.decisions.rows import existing
from services.api.operation import Lock, operation
from services.api.storage_hosts import is_live
from shared.contracts.db import Change, Update
from shared.errors import ApiError


@operation("host.enable", Lock("host", "enable"))
async def enable(call: Call, host: str) -> None:
    """VMs may be started there again."""
    if not is_live(call.store, host):
        raise ApiError("HOST_OFFLINE", host)
    call.on_success.append(Update(cls="host", ref=host, fields={"enabled": True}))


@operation("host.disable")
async def disable(call: Call, host: str, auto_enable: bool) -> None:
    """No VM is started there any more. Without `auto_enable` that outlasts restarts of the host."""
    row = existing(call.store, "host", host)
    config = {key: value for key, value in row["other_config"].items() if key != DISABLED}
    if not auto_enable:
        config[DISABLED] = "true"
    changes: list[Change] = [Update(cls="host", ref=host, fields={"enabled": False, "other_config": config})]
    await call.transact([*changes, *published(call.store, "host", host, changes)])


DISABLED = "host_auto_enable_off"
"""Key of `host.other_config` that keeps a host disabled when it comes back."""


@operation("host.compute_free_memory")
def compute_free_memory(call: Call, host: str) -> int:
    return memory.free_memory(call.store, host, call.api.placement.memory)


@operation("host.compute_memory_overhead")
def compute_memory_overhead(call: Call, host: str) -> int:
    return int(existing(call.store, "host", host)["memory_overhead"])


@operation("host.get_uncooperative_resident_VMs")
def get_uncooperative_resident_vms(call: Call, self: str) -> list[str]:
    """QEMU's balloon follows at once: no VM ever refuses, wherever it is."""
    return []


@operation("host.get_management_interface")
def get_management_interface(call: Call, host: str) -> str:
    for ref in existing(call.store, "host", host)["PIFs"]:
        if existing(call.store, "PIF", ref)["management"]:
            return str(ref)
    raise ApiError("INTERNAL_ERROR", "the host has no management interface")
