"""Messages of class pool that change settings. What the whole pool would have to follow, and cannot yet, is refused."""

from __future__ import annotations

import time
import uuid as uuids
from typing import Any, Final
from urllib.parse import urlsplit

from services.api import clock
from services.api.call import Call, new_ref
from services.api.decisions import open_vswitch
from services.api.decisions.evacuation import obstacles
from services.api.decisions.rows import existing, is_null
from services.api.operation import operation
from shared.contracts.db import Change, Create, Delete, MapDrop, Update
from shared.errors import ApiError
from shared.store import NULL


async def _set(call: Call, pool: str, **fields: Any) -> None:
    existing(call.store, "pool", pool)
    await call.transact([Update(cls="pool", ref=pool, fields=fields)])


@operation("pool.set_igmp_snooping_enabled", built=False)
def set_igmp_snooping_enabled(call: Call, self: str, value: bool) -> None:
    """Raises OPENVSWITCH_NOT_ACTIVE."""
    open_vswitch.require(call.store)
    if existing(call.store, "pool", self)["igmp_snooping_enabled"] != value:
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


# ---- logins through a directory (`services.api.directory`)


@operation("pool.set_local_auth_max_threads")
async def set_local_auth_max_threads(call: Call, self: str, value: int) -> None:
    _positive("value", value)
    await _set(call, self, local_auth_max_threads=value)


@operation("pool.set_ext_auth_max_threads")
async def set_ext_auth_max_threads(call: Call, self: str, value: int) -> None:
    _positive("value", value)
    await _set(call, self, ext_auth_max_threads=value)


@operation("pool.set_ext_auth_cache_enabled")
async def set_ext_auth_cache_enabled(call: Call, self: str, value: bool) -> None:
    await _set(call, self, ext_auth_cache_enabled=value)


@operation("pool.set_ext_auth_cache_size")
async def set_ext_auth_cache_size(call: Call, self: str, value: int) -> None:
    if value < 0:
        raise ApiError("INVALID_VALUE", "size", value)
    await _set(call, self, ext_auth_cache_size=value)


@operation("pool.set_ext_auth_cache_expiry")
async def set_ext_auth_cache_expiry(call: Call, self: str, value: int) -> None:
    _positive("expiry", value)
    await _set(call, self, ext_auth_cache_expiry=value)


def _positive(name: str, value: int) -> None:
    if value <= 0:
        raise ApiError("INVALID_VALUE", name, value)


# ---- telemetry

DAY: Final = 86400.0
LATEST: Final = {"daily": 2 * DAY, "weekly": 14 * DAY, "monthly": 62 * DAY}
"""By how often telemetry is collected: seconds from now in which that is done next, at most."""


@operation("pool.set_telemetry_next_collection")
async def set_telemetry_next_collection(call: Call, self: str, value: str) -> None:
    frequency = existing(call.store, "pool", self)["telemetry_frequency"]
    if clock.seconds(value) > time.time() + LATEST[frequency]:
        raise ApiError("TELEMETRY_NEXT_COLLECTION_TOO_LATE", value)
    await _set(call, self, telemetry_next_collection=value)


@operation("pool.reset_telemetry_uuid")
async def reset_telemetry_uuid(call: Call, self: str) -> None:
    row = existing(call.store, "pool", self)
    await call.transact(_replaced_secret(call, self, "telemetry_uuid", row["telemetry_uuid"], str(uuids.uuid4())))


def _replaced_secret(call: Call, pool: str, field: str, old: str, value: str) -> list[Change]:
    """The pool's field names a new secret with that value, or none if it is empty; the old one goes."""
    changes: list[Change] = []
    ref = NULL
    if value:
        ref = new_ref()
        changes.append(Create(cls="secret", ref=ref, fields={"uuid": str(uuids.uuid4()), "value": value}))
    changes.append(Update(cls="pool", ref=pool, fields={field: ref}))
    if not is_null(old) and call.store.row("secret", old) is not None:
        changes.append(Delete(cls="secret", ref=old))
    return changes


# ---- the way to repositories


@operation("pool.configure_repository_proxy")
async def configure_repository_proxy(call: Call, self: str, url: str, username: str, password: str) -> None:
    row = existing(call.store, "pool", self)
    if not _is_proxy(url):
        raise ApiError("INVALID_REPOSITORY_PROXY_URL", url)
    if bool(username) != bool(password) or any("\n" in text for text in (username, password)):
        raise ApiError("INVALID_REPOSITORY_PROXY_CREDENTIAL")
    await call.transact(_proxy(call, self, row["repository_proxy_password"], url, username, password))


@operation("pool.disable_repository_proxy")
async def disable_repository_proxy(call: Call, self: str) -> None:
    row = existing(call.store, "pool", self)
    await call.transact(_proxy(call, self, row["repository_proxy_password"], "", "", ""))


def _proxy(call: Call, pool: str, old: str, url: str, username: str, password: str) -> list[Change]:
    fields = {"repository_proxy_url": url, "repository_proxy_username": username}
    secret = _replaced_secret(call, pool, "repository_proxy_password", old, password)
    return [Update(cls="pool", ref=pool, fields=fields), *secret]


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@operation("pool.configure_update_sync")
async def configure_update_sync(call: Call, self: str, update_sync_frequency: str, update_sync_day: int) -> None:
    """Daily, when the day counts for nothing, or weekly on that day (0 is Sunday)."""
    weekly = update_sync_frequency == "weekly"
    if weekly and not 0 <= update_sync_day <= 6:
        raise ApiError("INVALID_UPDATE_SYNC_DAY", update_sync_day)
    day = update_sync_day if weekly else 0
    await _set(call, self, update_sync_frequency=update_sync_frequency, update_sync_day=day)


@operation("pool.set_update_sync_enabled")
async def set_update_sync_enabled(call: Call, self: str, value: bool) -> None:
    if value:
        repositories = existing(call.store, "pool", self)["repositories"]
        if not repositories:
            raise ApiError("NO_REPOSITORIES_CONFIGURED")
        if any(existing(call.store, "Repository", ref)["origin"] != "remote" for ref in repositories):
            raise ApiError("CAN_NOT_PERIODIC_SYNC_UPDATES")
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
    await _set(call, self, update_sync_enabled=False)


@operation("pool.check_update_readiness")
def check_update_readiness(call: Call, self: str, requires_reboot: bool) -> list[list[str]]:
    """What keeps updates from being applied: an error description each."""
    found = [["HA_IS_ENABLED"]] if existing(call.store, "pool", self)["ha_enabled"] else []
    for ref, host in call.store.rows("host").items():
        metrics = call.store.row("host_metrics", host["metrics"])
        if metrics is None or not metrics["live"]:
            found.append(["HOST_OFFLINE", ref])
        elif requires_reboot:
            found += [reason.description for reason in obstacles(call.store, ref).values()]
    return found


@operation("pool.enable_binary_storage")
async def enable_binary_storage(call: Call) -> None:
    """Blobs are kept on every host; a database from elsewhere may say that they must not."""
    key = "no_local_storage"
    drops = [MapDrop(cls="host", ref=host, field="other_config", key=key) for host in call.store.rows("host")]
    await call.transact(drops)


# ---- what has gone, or never came


@operation("pool.test_archive_target")
def test_archive_target(call: Call, self: str, config: dict[str, str]) -> str:
    raise ApiError("MESSAGE_REMOVED")
