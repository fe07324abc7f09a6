"""Messages of class PBD: an SR on a host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.call import Call, new_ref
from services.api.decisions import pbd_operations, sm_sessions
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.operation import operation
from services.api.storage_hosts import rescan, stat_change
from shared.contracts import storage as contract
from shared.contracts.db import Create, Delete, Update
from shared.errors import ApiError


def _assert(refusal: ApiError | None) -> None:
    if refusal is not None:
        raise refusal


@operation("PBD.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    fields = constructor_fields("PBD", args)
    _assert(pbd_operations.check_create(call.store, fields["host"], fields["SR"], fields["device_config"]))
    ref = new_ref()
    await call.transact([Create(cls="PBD", ref=ref, fields={**fields, "currently_attached": False})])
    return ref


@operation("PBD.destroy")
async def destroy(call: Call, self: str) -> None:
    _assert(pbd_operations.check_destroy(call.store, self))
    await call.transact([Delete(cls="PBD", ref=self)])


@operation("PBD.plug")
async def plug(call: Call, self: str) -> None:
    """Attaches the SR on the host and finds out what it holds."""
    _assert(pbd_operations.check_plug(call.store, self))
    row = existing(call.store, "PBD", self)
    if row["currently_attached"]:
        return
    sr = existing(call.store, "SR", row["SR"])
    host = call.api.uuid_of("host", row["host"])
    request = contract.SrAttach(sr=sr["uuid"], type=sr["type"], device_config=row["device_config"], ref=row["SR"])
    stat = await call.api.bus.call(contract.SR_ATTACH, request, host=host)
    plugged = Update(cls="PBD", ref=self, fields={"currently_attached": True})
    await rescan(call.api, row["SR"], host, [plugged, stat_change(row["SR"], stat)])


@operation("PBD.unplug")
async def unplug(call: Call, self: str) -> None:
    _assert(pbd_operations.check_unplug(call.store, self))
    row = existing(call.store, "PBD", self)
    if not row["currently_attached"]:
        return
    request = contract.SrRef(sr=call.api.uuid_of("SR", row["SR"]))
    await call.api.bus.call(contract.SR_DETACH, request, host=call.api.uuid_of("host", row["host"]))
    await call.transact([Update(cls="PBD", ref=self, fields={"currently_attached": False})])


@operation("PBD.set_device_config")
async def set_device_config(call: Call, self: str, value: dict[str, str]) -> None:
    """For the SR's plug-in."""
    sm_sessions.require_own(call.store, call.session, existing(call.store, "PBD", self)["SR"])
    _assert(pbd_operations.check_config(value))
    await call.transact([Update(cls="PBD", ref=self, fields={"device_config": value})])
