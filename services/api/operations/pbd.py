"""Messages of class PBD: an SR on a host. Each is shown in the SR's `current_operations` while it lasts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from services.api.call import Call, new_ref
from services.api.decisions import device_secrets, pbd_operations, sm_sessions
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing
from services.api.decisions.sr_hosts import scanner
from services.api.implicit import constructor_fields
from services.api.operation import Lock, operation
from services.api.operations.sr import attach_request
from services.api.storage_hosts import ask, rescan, stat_change
from shared.contracts import storage as contract
from shared.contracts.db import Create, Delete, Update
from shared.errors import ApiError
from shared.store import Store

log = logging.getLogger("api.sr")


def _assert(refusal: ApiError | None) -> None:
    if refusal is not None:
        raise refusal


def _named_sr(store: Store, arguments: tuple[Any, ...]) -> str:
    return str(arguments[0].get("SR", ""))


def _own_sr(store: Store, arguments: tuple[Any, ...]) -> str:
    return str(existing(store, "PBD", arguments[0])["SR"])


@operation("PBD.create", Lock("SR", "pbd_create", find=_named_sr))
async def create(call: Call, args: Mapping[str, Any]) -> str:
    fields = constructor_fields("PBD", args)
    _assert(pbd_operations.check_create(call.store, fields["host"], fields["SR"], fields["device_config"]))
    shown, fresh = device_secrets.hidden(fields["device_config"])
    config, secrets = device_secrets.copied(call.store, shown, fresh)
    ref = new_ref()
    row = {**fields, "device_config": config, "currently_attached": False}
    call.on_success += [*secrets, Create(cls="PBD", ref=ref, fields=row)]
    return ref


@operation("PBD.destroy", Lock("SR", "pbd_destroy", find=_own_sr))
async def destroy(call: Call, self: str) -> None:
    _assert(pbd_operations.check_destroy(call.store, self))
    config = existing(call.store, "PBD", self)["device_config"]
    call.on_success += [*device_secrets.dropped(call.store, config), Delete(cls="PBD", ref=self)]


@operation("PBD.plug", Lock("SR", "plug", find=_own_sr))
async def plug(call: Call, self: str) -> None:
    """Attaches the SR on the host and finds out what it holds; what goes wrong with the latter only shows later."""
    row = existing(call.store, "PBD", self)
    require_live(call.store, row["host"])
    if row["currently_attached"]:
        return
    _assert(pbd_operations.check_plug(call.store, self))
    request = attach_request(call.store, self)
    call.undo.append(partial(_let_go, call, row["host"], request.sr))
    stat = await ask(call.api, row["host"], contract.SR_ATTACH, request)
    plugged = Update(cls="PBD", ref=self, fields={"currently_attached": True})
    await call.transact([plugged, stat_change(row["SR"], stat)])
    call.undo.clear()
    host = scanner(call.store, row["SR"], row["host"])
    if host is None:
        return
    try:
        await rescan(call.api, row["SR"], call.api.uuid_of("host", host))
    except ApiError as error:
        log.warning("SR %s is attached, but what it holds cannot be told: %s", row["SR"], error)


async def _let_go(call: Call, host: str, sr: str) -> None:
    await ask(call.api, host, contract.SR_DETACH, contract.SrRef(sr=sr))


def _refuse_unplug(store: Store, arguments: tuple[Any, ...]) -> ApiError | None:
    """Work on the SR's disks, done where it is attached, is waited for."""
    return pbd_operations.check_idle(store, arguments[0])


@operation("PBD.unplug", Lock("SR", "unplug", find=_own_sr, refuse=_refuse_unplug))
async def unplug(call: Call, self: str) -> None:
    row = existing(call.store, "PBD", self)
    require_live(call.store, row["host"])
    if not row["currently_attached"]:
        return
    _assert(pbd_operations.check_unplug(call.store, self))
    await _let_go(call, row["host"], call.api.uuid_of("SR", row["SR"]))
    call.on_success.append(Update(cls="PBD", ref=self, fields={"currently_attached": False}))


@operation("PBD.set_device_config")
async def set_device_config(call: Call, self: str, value: dict[str, str]) -> None:
    """For the SR's plug-in."""
    row = existing(call.store, "PBD", self)
    sm_sessions.require_own(call.store, call.session, row["SR"])
    _assert(pbd_operations.check_config(value))
    config, secrets = device_secrets.hidden(value)
    await call.transact([*secrets, Update(cls="PBD", ref=self, fields={"device_config": config})])
