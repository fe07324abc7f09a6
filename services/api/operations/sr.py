"""Messages that make and remove SRs, and look what they hold."""

from __future__ import annotations

import asyncio
import logging
import uuid as uuids
from collections.abc import Sequence
from typing import Any

from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions import device_secrets
from services.api.decisions.liveness import is_live, require_live
from services.api.decisions.rows import Record, existing
from services.api.decisions.sm_features import is_v1
from services.api.operation import Lock, operation
from services.api.storage_hosts import ask, host_for, rescan, restat
from services.api.subcalls import perform
from shared.contracts import storage as contract
from shared.contracts.db import Change, Create, Delete, RowPresent, Update
from shared.errors import ApiError
from shared.store import Store

log = logging.getLogger("api.sr")


@operation("SR.get_supported_types")
def get_supported_types(call: Call) -> list[str]:
    return sorted({row["type"] for row in call.store.rows("SM").values()})


def _row(name: str, description: str, type_: str, content_type: str, shared: bool, config: dict[str, str]) -> Any:
    return {
        "name_label": name,
        "name_description": description,
        "type": type_.lower(),
        "content_type": content_type,
        "shared": shared,
        "sm_config": config,
        "default_vdi_visibility": True,
        "physical_size": -1,
        "physical_utilisation": -1,
    }


def require_driver(store: Store, type_: str) -> str:
    """The type as drivers write it. Raises SR_UNKNOWN_DRIVER."""
    name = type_.lower()
    if all(row["type"] != name for row in store.rows("SM").values()):
        raise ApiError("SR_UNKNOWN_DRIVER", name)
    return name


def settings_for(store: Store, sr: Record, device_config: dict[str, str]) -> dict[str, str]:
    """As the SR's plug-in gets them: a SMAPIv1 driver looks secrets up itself."""
    return device_config if is_v1(store, sr) else device_secrets.told(store, device_config)


def attach_request(store: Store, pbd: str) -> contract.SrAttach:
    """Raises HANDLE_INVALID; UUID_INVALID for a password's secret that is gone."""
    row = existing(store, "PBD", pbd)
    sr = existing(store, "SR", row["SR"])
    config = settings_for(store, sr, row["device_config"])
    return contract.SrAttach(sr=sr["uuid"], type=sr["type"], device_config=config, ref=row["SR"])


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
    """The rows first, as drivers read them; then the medium, from the given host or, for a shared SR, the coordinator;
    then every host is connected. One that cannot be does not undo the others.
    """
    if shared:
        host = call.api.host_ref
    require_live(call.store, host)
    type = require_driver(call.store, type)
    others = [ref for ref in call.store.rows("host") if ref != host] if shared else []
    new = _New(call, host, others)
    config = await new.write(_row(name_label, name_description, type, content_type, shared, sm_config), device_config)
    row = existing(call.store, "SR", new.sr)
    request = contract.SrCreate(
        sr=row["uuid"],
        type=type,
        device_config=settings_for(call.store, row, config),
        physical_size=physical_size,
        name_label=name_label,
        name_description=name_description,
        content_type=content_type,
        sm_config=sm_config,
        ref=new.sr,
    )
    call.undo.append(new.forget)
    made = await ask(call.api, host, contract.SR_CREATE, request)
    call.undo.append(new.unmake)
    await new.complete(device_secrets.untold(made.device_config))
    await asyncio.gather(*(_plug(call, pbd) for pbd in new.pbds))
    return new.sr


async def _plug(call: Call, pbd: str) -> None:
    try:
        await perform(call, "PBD.plug", pbd)
    except ApiError as error:
        if error.code == "TASK_CANCELLED":
            raise
        log.warning("the new SR is not attached by PBD %s: %s", pbd, error)


class _New:
    """An SR that a call makes. `pbds`: that of its home first."""

    def __init__(self, call: Call, home: str, others: Sequence[str]) -> None:
        self.sr = new_ref()
        self.pbds: list[str] = []
        self._call = call
        self._hosts = (home, *others)

    async def write(self, row: Any, device_config: dict[str, str]) -> dict[str, str]:
        """The settings of its home as they were given, to be judged by the plug-in: rows hold no odd characters."""
        shown, fresh = device_secrets.hidden(device_config)
        changes: list[Change] = [Create(cls="SR", ref=self.sr, fields={"uuid": str(uuids.uuid4()), **row})]
        configs: list[dict[str, str]] = []
        for host in self._hosts:
            config, secrets = device_secrets.copied(self._call.store, shown, fresh)
            configs.append(config)
            fields = {"host": host, "SR": self.sr, "device_config": config, "currently_attached": False}
            self.pbds.append(new_ref())
            changes += [*secrets, Create(cls="PBD", ref=self.pbds[-1], fields=fields)]
        changes += published(self._call.store, "SR", self.sr, changes)
        await self._call.transact(changes, [RowPresent(cls="host", ref=host) for host in self._hosts])
        return configs[0]

    async def complete(self, made: dict[str, str]) -> None:
        """The plug-in may have found out more about the medium; each PBD keeps the secrets that it has."""
        changes: list[Change] = []
        for pbd in self.pbds:
            row = existing(self._call.store, "PBD", pbd)["device_config"]
            config = {key: row[key] if device_secrets.is_secret(key) and key in row else made[key] for key in made}
            if config != row:
                changes.append(Update(cls="PBD", ref=pbd, fields={"device_config": config}))
        if changes:
            await self._call.transact(changes)

    async def unmake(self) -> None:
        """The medium is as before; one that has disks by now is only let go of."""
        api, store = self._call.api, self._call.store
        request = contract.SrRef(sr=existing(store, "SR", self.sr)["uuid"])
        home, *others = self._hosts
        for host in others:
            if is_live(store, host):
                await ask(api, host, contract.SR_DETACH, request)
        await ask(api, home, contract.SR_ATTACH, attach_request(store, self.pbds[0]))
        try:
            await ask(api, home, contract.SR_DESTROY, request)
        except ApiError as error:
            if error.code != "SR_NOT_EMPTY":
                raise
            await ask(api, home, contract.SR_DETACH, request)

    async def forget(self) -> None:
        if self._call.store.row("SR", self.sr) is not None:
            await self._call.api.database.transact(forgotten(self._call.store, self.sr))


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
    row = _row(name_label, name_description, type, content_type, shared, sm_config)
    changes: list[Change] = [Create(cls="SR", ref=(ref := new_ref()), fields={"uuid": uuid, **row})]
    await call.transact([*changes, *published(call.store, "SR", ref, changes)])
    return ref


@operation("SR.scan", Lock("SR", "scan"))
async def scan(call: Call, sr: str) -> None:
    await rescan(call.api, sr, call.api.uuid_of("host", host_for(call.store, sr)))


@operation("SR.update")
async def update(call: Call, sr: str) -> None:
    """Needs no lock: it only asks how full the SR is."""
    await restat(call.api, sr)


def forgotten(store: Store, sr: str) -> list[Change]:
    """What removes the SR's rows, with the secrets of its connections."""
    row = existing(store, "SR", sr)
    configs = [existing(store, "PBD", ref)["device_config"] for ref in row["PBDs"]]
    devices: list[Change] = [Delete(cls="PBD", ref=ref) for ref in row["PBDs"]]
    disks: list[Change] = [Delete(cls="VDI", ref=ref) for ref in row["VDIs"]]
    return [*device_secrets.dropped(store, *configs), *devices, *disks, Delete(cls="SR", ref=sr)]


@operation("SR.forget", Lock("SR", "forget"))
async def forget(call: Call, sr: str) -> None:
    """The records go, the medium stays."""
    call.on_success += forgotten(call.store, sr)


@operation("SR.destroy", Lock("SR", "destroy"))
async def destroy(call: Call, sr: str) -> None:
    """The medium goes too. The SR must be unplugged everywhere and hold no disks but figures about itself."""
    row = existing(call.store, "SR", sr)
    if row["other_config"].get("indestructible") == "true":
        raise ApiError("SR_INDESTRUCTIBLE", sr)
    for host, one in call.store.rows("host").items():
        if one["local_cache_sr"] == sr:
            raise ApiError("SR_IS_CACHE_SR", host)
    pbd = _home(call, row)
    host = existing(call.store, "PBD", pbd)["host"]
    medium = contract.SrRef(sr=row["uuid"])

    async def let_go() -> None:
        await ask(call.api, host, contract.SR_DETACH, medium)
        await call.api.database.transact([Update(cls="PBD", ref=pbd, fields={"currently_attached": False})])

    call.undo.append(let_go)
    await ask(call.api, host, contract.SR_ATTACH, attach_request(call.store, pbd))
    # Drivers look whether the connection says so.
    await call.transact([Update(cls="PBD", ref=pbd, fields={"currently_attached": True})])
    for vdi in row["VDIs"]:
        disk = existing(call.store, "VDI", vdi)
        if disk["type"] == "rrd":
            await _without(call, host, contract.VdiRef(sr=row["uuid"], location=disk["location"]))
    await ask(call.api, host, contract.SR_DESTROY, medium)
    call.on_success += [*device_secrets.dropped(call.store, row["sm_config"]), *forgotten(call.store, sr)]


async def _without(call: Call, host: str, disk: contract.VdiRef) -> None:
    try:
        await ask(call.api, host, contract.VDI_DESTROY, disk)
    except ApiError as error:
        if error.code != "VDI_MISSING":
            raise


def _home(call: Call, sr: Record) -> str:
    """The PBD of the host that does it: the coordinator's if it has one, else that of a live host."""
    pbds = [(ref, existing(call.store, "PBD", ref)["host"]) for ref in sr["PBDs"]]
    live = sorted((host != call.api.host_ref, ref) for ref, host in pbds if is_live(call.store, host))
    if not live:
        raise ApiError("HOST_OFFLINE", pbds[0][1])
    return str(live[0][1])


@operation("SR.get_live_hosts")
def get_live_hosts(call: Call, sr: str) -> list[str]:
    pbds = [existing(call.store, "PBD", ref) for ref in existing(call.store, "SR", sr)["PBDs"]]
    return [pbd["host"] for pbd in pbds if pbd["currently_attached"] and is_live(call.store, pbd["host"])]
