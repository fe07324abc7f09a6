"""Messages about caching shared disks on a local SR of each host, whose driver has SR_SUPPORTS_LOCAL_CACHING."""

from __future__ import annotations

from typing import Final

from services.api.call import Call
from services.api.decisions.idle_host import require_idle
from services.api.decisions.rows import existing, is_null
from services.api.operation import operation
from services.api.subcalls import perform
from shared.contracts.db import Change, Update
from shared.errors import ApiError
from shared.store import NULL, Store

CACHING: Final = "SR_SUPPORTS_LOCAL_CACHING"


@operation("host.enable_local_storage_caching", forwarded=True)
async def enable(call: Call, host: str, sr: str) -> None:
    """Raises HOST_NOT_DISABLED, HOST_IN_USE; SR_OPERATION_NOT_SUPPORTED [sr] for one that is not a single host's or
    whose driver cannot; HOST_CANNOT_SEE_SR [host, sr] for another host's.
    """
    require_idle(call.store, host)
    hosts = _hosts(call.store, sr)
    if len(hosts) != 1 or not _can_cache(call.store, sr):
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", sr)
    if hosts != [host]:
        raise ApiError("HOST_CANNOT_SEE_SR", host, sr)
    changes = [*_off(call.store, host), Update(cls="SR", ref=sr, fields={"local_cache_enabled": True})]
    await call.transact([*changes, Update(cls="host", ref=host, fields={"local_cache_sr": sr})])


@operation("host.disable_local_storage_caching", forwarded=True)
async def disable(call: Call, host: str) -> None:
    require_idle(call.store, host)
    await call.transact([*_off(call.store, host), Update(cls="host", ref=host, fields={"local_cache_sr": NULL})])


def _hosts(store: Store, sr: str) -> list[str]:
    """Those whose own SR it is: none if it is shared."""
    row = existing(store, "SR", sr)
    return [] if row["shared"] else [store.get("PBD", pbd, "host") for pbd in row["PBDs"]]


def _can_cache(store: Store, sr: str) -> bool:
    kind = store.get("SR", sr, "type")
    return any(row["type"] == kind and CACHING in row["features"] for row in store.rows("SM").values())


def _off(store: Store, host: str) -> list[Change]:
    """The SR that was used until now."""
    sr = existing(store, "host", host)["local_cache_sr"]
    known = not is_null(sr) and store.row("SR", sr) is not None
    return [Update(cls="SR", ref=sr, fields={"local_cache_enabled": False})] if known else []


def _local_sr(store: Store, host: str) -> str:
    """The host's SR that can cache. Raises NO_LOCAL_STORAGE."""
    for sr in store.rows("SR"):
        if _hosts(store, sr) == [host] and _can_cache(store, sr):
            return sr
    raise ApiError("NO_LOCAL_STORAGE")


@operation("pool.enable_local_storage_caching")
async def enable_everywhere(call: Call, self: str) -> None:
    """Raises HOSTS_FAILED_TO_ENABLE_CACHING [host, ...]."""
    existing(call.store, "pool", self)
    failed = []
    for host in call.store.rows("host"):
        try:
            require_idle(call.store, host)
            await perform(call, "host.enable_local_storage_caching", host, _local_sr(call.store, host))
        except ApiError:
            failed.append(host)
    if failed:
        raise ApiError("HOSTS_FAILED_TO_ENABLE_CACHING", *failed)


@operation("pool.disable_local_storage_caching")
async def disable_everywhere(call: Call, self: str) -> None:
    """Raises HOSTS_FAILED_TO_DISABLE_CACHING [host, ...]: those that are not idle, whether they cache or not."""
    existing(call.store, "pool", self)
    failed = []
    for host in call.store.rows("host"):
        try:
            await perform(call, "host.disable_local_storage_caching", host)
        except ApiError:
            failed.append(host)
    if failed:
        raise ApiError("HOSTS_FAILED_TO_DISABLE_CACHING", *failed)
