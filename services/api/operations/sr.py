"""Messages of class SR."""

from __future__ import annotations

import uuid as uuids
from functools import partial
from typing import Any

from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing
from services.api.operation import Lock, operation
from services.api.storage_hosts import host_for, is_live, rescan, stat_change
from shared.contracts import storage as contract
from shared.contracts.db import Change, Create, Delete
from shared.errors import ApiError
from shared.store import Store


def _types(call: Call) -> list[str]:
    return sorted({row["type"] for row in call.store.rows("SM").values()})


@operation("SR.get_supported_types")
def get_supported_types(call: Call) -> list[str]:
    return _types(call)


def _row(name: str, description: str, type_: str, content_type: str, shared: bool, config: dict[str, str]) -> Any:
    return {
        "name_label": name,
        "name_description": description,
        "type": type_,
        "content_type": content_type,
        "shared": shared,
        "sm_config": config,
        "default_vdi_visibility": True,
    }


def require_driver(store: Store, type_: str) -> str:
    """The type as drivers write it. Raises SR_UNKNOWN_DRIVER."""
    name = type_.lower()
    if all(row["type"] != name for row in store.rows("SM").values()):
        raise ApiError("SR_UNKNOWN_DRIVER", name)
    return name


@operation("SR.create")
async def create(
    call: Call,
    host: str,
    device_config: dict[str, str],
    physical_size: int,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    """Prepares the medium from the given host and plugs the SR there; a shared one from the coordinator, then on every
    live host.
    """
    if shared:
        host = call.api.host_ref
    require_live(call.store, host)
    type = require_driver(call.store, type)
    uuid, sr = str(uuids.uuid4()), new_ref()
    request = contract.SrCreate(
        sr=uuid,
        type=type,
        device_config=device_config,
        physical_size=physical_size,
        name_label=name_label,
        content_type=content_type,
        sm_config=sm_config,
    )
    home = call.api.uuid_of("host", host)
    await call.api.bus.call(contract.SR_CREATE, request, host=home)
    others = [ref for ref in call.store.rows("host") if ref != host and is_live(call.store, ref)] if shared else []
    changes: list[Change] = [
        Create(
            cls="SR",
            ref=sr,
            fields={"uuid": uuid, **_row(name_label, name_description, type, content_type, shared, sm_config)},
        )
    ]
    for one in (host, *others):
        where = call.api.uuid_of("host", one)
        call.undo.append(partial(_detach if one != host else _unmake, call, uuid, where))
        attach = contract.SrAttach(sr=uuid, type=type, device_config=device_config, ref=sr)
        stat = await call.api.bus.call(contract.SR_ATTACH, attach, host=where)
        fields = {"host": one, "SR": sr, "device_config": device_config, "currently_attached": True}
        changes.append(Create(cls="PBD", ref=new_ref(), fields=fields))
    call.on_success += [*changes, stat_change(sr, stat)]
    return sr


async def _detach(call: Call, sr: str, host: str) -> None:
    await call.api.bus.call(contract.SR_DETACH, contract.SrRef(sr=sr), host=host)


async def _unmake(call: Call, sr: str, host: str) -> None:
    """The medium is as before; one that had disks is only let go of."""
    try:
        await call.api.bus.call(contract.SR_DESTROY, contract.SrRef(sr=sr), host=host)
    except ApiError as error:
        if error.code != "SR_NOT_EMPTY":
            raise
        await _detach(call, sr, host)


@operation("SR.introduce")
async def introduce(
    call: Call,
    uuid: str,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    """A record for an SR whose medium exists; PBDs make it usable. Nobody looks whether there is a driver yet."""
    uuid = uuid or str(uuids.uuid4())
    if call.store.by_uuid.get(uuid) is not None:
        raise ApiError("SR_UUID_EXISTS", uuid)
    row = _row(name_label, name_description, type.lower(), content_type, shared, sm_config)
    unknown = {"physical_size": -1, "physical_utilisation": -1}
    changes: list[Change] = [Create(cls="SR", ref=(ref := new_ref()), fields={"uuid": uuid, **row, **unknown})]
    await call.transact([*changes, *published(call.store, "SR", ref, changes)])
    return ref


@operation("SR.scan", Lock("SR", "scan"))
async def scan(call: Call, sr: str) -> None:
    await rescan(call.api, sr, call.api.uuid_of("host", host_for(call.store, sr)))


@operation("SR.update")
async def update(call: Call, sr: str) -> None:
    """Needs no lock: it only reads."""
    await scan(call, sr)


def _gone(call: Call, sr: str) -> list[Change]:
    row = existing(call.store, "SR", sr)
    devices: list[Change] = [Delete(cls="PBD", ref=ref) for ref in row["PBDs"]]
    disks: list[Change] = [Delete(cls="VDI", ref=ref) for ref in row["VDIs"]]
    return [*devices, *disks, Delete(cls="SR", ref=sr)]


@operation("SR.forget", Lock("SR", "forget"))
async def forget(call: Call, sr: str) -> None:
    """The records go, the medium stays."""
    call.on_success += _gone(call, sr)


@operation("SR.destroy", Lock("SR", "destroy"))
async def destroy(call: Call, sr: str) -> None:
    """The medium goes too. The SR must be unplugged everywhere and hold no disks."""
    row = existing(call.store, "SR", sr)
    if row["other_config"].get("indestructible") == "true":
        raise ApiError("SR_INDESTRUCTIBLE", sr)
    for host, one in call.store.rows("host").items():
        if one["local_cache_sr"] == sr:
            raise ApiError("SR_IS_CACHE_SR", host)
    if row["VDIs"]:
        raise ApiError("SR_NOT_EMPTY")
    pbds = [existing(call.store, "PBD", ref) for ref in row["PBDs"]]
    hosts = [pbd for pbd in pbds if is_live(call.store, pbd["host"])]
    if not hosts:
        raise ApiError("SR_HAS_NO_PBDS", sr)
    home = call.api.uuid_of("host", hosts[0]["host"])
    attach = contract.SrAttach(sr=row["uuid"], type=row["type"], device_config=hosts[0]["device_config"], ref=sr)
    await call.api.bus.call(contract.SR_ATTACH, attach, host=home)
    await call.api.bus.call(contract.SR_DESTROY, contract.SrRef(sr=row["uuid"]), host=home)
    call.on_success += _gone(call, sr)


@operation("SR.get_live_hosts")
def get_live_hosts(call: Call, sr: str) -> list[str]:
    pbds = [existing(call.store, "PBD", ref) for ref in existing(call.store, "SR", sr)["PBDs"]]
    return [pbd["host"] for pbd in pbds if pbd["currently_attached"] and is_live(call.store, pbd["host"])]
