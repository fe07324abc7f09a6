"""Messages of class Repository, and which of them the pool uses. Nothing is fetched from them yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from services.api import clock
from services.api.call import Call
from services.api.construct import insert, remove
from services.api.decisions.addresses import is_address
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Change, Update
from shared.errors import ApiError

_KEY_NAME: Final = re.compile(r"[A-Za-z0-9_-]*")
REMOTE_PATH: Final = "/repository/enabled"
_ALONE: Final = frozenset({"bundle", "remote_pool"})
"""Origins of repositories that have to be the only one in use."""


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ApiError("INVALID_BASE_URL", url)


def _check_remote_url(url: str) -> None:
    """It is `https://<address>/repository/enabled`. Raises INVALID_BASE_URL."""
    parts = urlsplit(url)
    address = parts.hostname or ""
    if (parts.scheme, parts.path) != ("https", REMOTE_PATH) or not (is_address(address, 4) or is_address(address, 6)):
        raise ApiError("INVALID_BASE_URL", url)


def _check_unknown(call: Call, name_label: str, binary_url: str) -> None:
    """Raises REPOSITORY_ALREADY_EXISTS."""
    for ref, row in call.store.rows("Repository").items():
        if row["name_label"] == name_label or row["binary_url"] == binary_url:
            raise ApiError("REPOSITORY_ALREADY_EXISTS", ref)


def _check_key(path: str) -> None:
    if not _KEY_NAME.fullmatch(path):
        raise ApiError("INVALID_GPGKEY_PATH", path)


@operation("Repository.introduce")
async def introduce(
    call: Call,
    name_label: str,
    name_description: str,
    binary_url: str,
    source_url: str,
    update: bool,
    gpgkey_path: str,
) -> str:
    _check_url(binary_url)
    if source_url:
        _check_url(source_url)
    _check_key(gpgkey_path)
    _check_unknown(call, name_label, binary_url)
    fields = {
        "name_label": name_label,
        "name_description": name_description,
        "binary_url": binary_url,
        "source_url": source_url,
        "update": update,
        "gpgkey_path": gpgkey_path,
        "origin": "remote",
    }
    return await insert(call, "Repository", fields)


@operation("Repository.introduce_bundle")
async def introduce_bundle(call: Call, name_label: str, name_description: str) -> str:
    for ref, row in call.store.rows("Repository").items():
        if row["origin"] == "bundle":
            raise ApiError("BUNDLE_REPOSITORY_ALREADY_EXISTS", ref)
        if row["name_label"] == name_label:
            raise ApiError("REPOSITORY_ALREADY_EXISTS", ref)
    fields = {"name_label": name_label, "name_description": name_description, "update": True, "origin": "bundle"}
    return await insert(call, "Repository", fields)


@operation("Repository.introduce_remote_pool")
async def introduce_remote_pool(
    call: Call, name_label: str, name_description: str, binary_url: str, certificate: str
) -> str:
    """The updates that another pool offers. `certificate`: what its coordinator is recognised by."""
    _check_remote_url(binary_url)
    _check_unknown(call, name_label, binary_url)
    fields = {
        "name_label": name_label,
        "name_description": name_description,
        "binary_url": binary_url,
        "update": True,
        "origin": "remote_pool",
        "certificate": certificate,
    }
    return await insert(call, "Repository", fields)


@operation("Repository.forget")
async def forget(call: Call, self: str) -> None:
    existing(call.store, "Repository", self)
    if self in call.api.pool()["repositories"]:
        raise ApiError("REPOSITORY_IS_IN_USE")
    await remove(call, "Repository", self)


@operation("Repository.set_gpgkey_path")
async def set_gpgkey_path(call: Call, self: str, value: str) -> None:
    existing(call.store, "Repository", self)
    _check_key(value)
    await call.transact([Update(cls="Repository", ref=self, fields={"gpgkey_path": value})])


async def _use(call: Call, pool: str, wanted: Sequence[str]) -> None:
    """The pool uses these and no others. Raises REPO_SHOULD_BE_SINGLE_ONE_ENABLED."""
    before: list[str] = existing(call.store, "pool", pool)["repositories"]
    origins = [existing(call.store, "Repository", ref)["origin"] for ref in wanted]
    if len(wanted) > 1 and not _ALONE.isdisjoint(origins):
        raise ApiError("REPO_SHOULD_BE_SINGLE_ONE_ENABLED")
    fields: dict[str, Any] = {"repositories": list(dict.fromkeys(wanted))}
    changes: list[Change] = []
    for ref in wanted:
        if ref not in before:
            fields["last_update_sync"] = clock.EPOCH
            changes.append(Update(cls="Repository", ref=ref, fields={"hash": ""}))
    if not wanted:
        unknown = {"latest_synced_updates_applied": "unknown"}
        changes += [Update(cls="host", ref=host, fields=unknown) for host in call.store.rows("host")]
        fields["update_sync_enabled"] = False
    await call.transact([*changes, Update(cls="pool", ref=pool, fields=fields)])


@operation("pool.set_repositories")
async def set_repositories(call: Call, self: str, value: list[str]) -> None:
    await _use(call, self, value)


@operation("pool.add_repository")
async def add_repository(call: Call, self: str, value: str) -> None:
    await _use(call, self, [*existing(call.store, "pool", self)["repositories"], value])


@operation("pool.remove_repository")
async def remove_repository(call: Call, self: str, value: str) -> None:
    before: list[str] = existing(call.store, "pool", self)["repositories"]
    if value in before:
        await _use(call, self, [ref for ref in before if ref != value])


@operation("pool.sync_updates", built=False)
def sync_updates(call: Call, self: str, *options: Any) -> str:
    if not existing(call.store, "pool", self)["repositories"]:
        raise ApiError("NO_REPOSITORY_ENABLED")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("host.apply_updates", built=False)
def apply_updates(call: Call, self: str, hash: str) -> list[list[str]]:
    existing(call.store, "host", self)
    if not call.api.pool()["repositories"]:
        raise ApiError("NO_REPOSITORY_ENABLED")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
