"""The SR type `dummy`: disks without content, for the simulator. Only their records exist, in the service's own folder.

It belongs to the storage process that holds it: the hosts of that process share a dummy SR, other processes do not
see it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.storage.journal import Journal
from services.storage.plugins.errors import Failure, backend_failure, volume_missing
from services.storage.plugins.interface import (
    ActivatedOnAnotherHost,
    Domain,
    Handle,
    Held,
    Implementation,
    NewVolume,
    Probed,
    Report,
    SrStat,
    Volume,
)
from services.storage.plugins.skeleton import DatapathSkeleton, SrSkeleton, VolumeSkeleton
from shared.bus.contract import Record
from shared.contracts.storage import DriverInfo
from shared.errors import ApiError

DEFAULT_SIZE = 1 << 40
"""Bytes that a dummy SR claims to have, unless its `size` says otherwise."""


class _Record(Record, frozen=True):
    """`origin`: what the disk was made from; lets a repeated request find its result."""

    volume: Volume
    origin: str = ""


class DummyPlugin:
    """`journal`: where the records are kept; the plug-in has it for itself."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.handles: dict[Handle, tuple[str, str]] = {}
        """To host and SR."""
        self.activated: dict[str, dict[str, Held]] = {}
        """URI to host to what it has."""
        self.sr = _Sr(self)
        self.volume = _Volume(self)
        self.datapath = _Datapath(self)

    @property
    def traceless(self) -> bool:
        return True

    @property
    def branches_in_use(self) -> bool:
        return True

    def query(self) -> DriverInfo:
        return DriverInfo(
            type="dummy",
            name="Dummy",
            description="Disks without content, for simulated hosts",
            vendor="xapi-toolstack",
            copyright="LGPL-2.1-only",
            version="1.0",
            required_api_version="5.0",
            features=dict.fromkeys(
                [
                    *("SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_UPDATE"),
                    *("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE"),
                    *("VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_INTRODUCE", "VDI_UPDATE", "THIN_PROVISIONING"),
                    *("VDI_RESIZE_ONLINE", "VDI_REVERT", "VDI_MIRROR"),
                ],
                1,
            )
            | {"VDI_RESET_ON_BOOT": 2},
            configuration={"size": "bytes that the SR claims to have"},
        )

    async def close(self) -> None:
        await self.journal.close()

    def uuid(self, sr: Handle) -> str:
        try:
            return self.handles[sr][1]
        except KeyError:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {sr}") from None

    def volumes(self, uuid: str) -> list[Volume]:
        prefix = f"{uuid}/"
        return [_parse(value).volume for key, value in self.journal.data.items() if key.startswith(prefix)]

    def find(self, uri: str) -> Volume:
        """Raises VDI_MISSING."""
        return self._find(uri.removeprefix("dummy:///")).volume

    def record(self, sr: Handle, key: str) -> _Record:
        return self._find(f"{self.uuid(sr)}/{key}")

    def earlier(self, sr: Handle, uuid: str, origin: str) -> Volume | None:
        """The disk that an earlier run of the same request made. Raises SR_BACKEND_FAILURE_43 if it is another one."""
        record = self.journal.data.get(f"{self.uuid(sr)}/{uuid}")
        if record is None:
            return None
        if _parse(record).origin != origin:
            raise backend_failure(Failure.VDI_EXISTS, f"there is a disk {uuid} already")
        return _parse(record).volume

    def _find(self, name: str) -> _Record:
        try:
            return _parse(self.journal.data[name])
        except KeyError:
            raise volume_missing(*name.split("/", 1)) from None


class _Sr(SrSkeleton):
    def __init__(self, plugin: DummyPlugin) -> None:
        self._plugin = plugin

    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        found = [key for key in self._plugin.journal.data if "/" not in key]
        return [Probed(configuration=configuration, uuid=uuid) for uuid in (*found, "")]

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        size = configuration.get("size", str(DEFAULT_SIZE))
        if not size.isdecimal():
            raise backend_failure(Failure.INVALID_ARGUMENT, f"size is not a number of bytes: {size!r}")
        await self._plugin.journal.write({uuid: {"size": int(size)}})
        return configuration

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        if uuid not in self._plugin.journal.data:  # made by another process: there is no medium to find it on
            await self.create(uuid, configuration, "", "")
        handle = Handle(f"{host} {uuid}")
        self._plugin.handles[handle] = (host, uuid)
        return handle

    async def detach(self, sr: Handle) -> None:
        self._plugin.handles.pop(sr, None)

    async def destroy(self, sr: Handle) -> None:
        uuid = self._plugin.uuid(sr)
        if self._plugin.volumes(uuid):
            raise ApiError("SR_NOT_EMPTY")
        await self._plugin.journal.write({uuid: None})
        await self.detach(sr)

    async def stat(self, sr: Handle) -> SrStat:
        uuid = self._plugin.uuid(sr)
        if uuid not in self._plugin.journal.data:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"there is no dummy SR {uuid} any more")
        size = self._plugin.journal.data[uuid]["size"]
        return SrStat(uuid=uuid, free_space=size, total_space=size)

    async def ls(self, sr: Handle) -> list[Volume]:
        await self.stat(sr)
        return self._plugin.volumes(self._plugin.uuid(sr))


class _Volume(VolumeSkeleton):
    def __init__(self, plugin: DummyPlugin) -> None:
        self._plugin = plugin

    async def create(self, sr: Handle, new: NewVolume, size: int) -> Volume:
        if size <= 0:
            raise backend_failure(Failure.VDI_SIZE, f"a disk of {size} bytes makes no sense")
        existing = self._plugin.earlier(sr, new.uuid, "")
        if existing is not None:
            if existing.virtual_size != size:
                raise backend_failure(Failure.VDI_EXISTS, f"there is a disk {new.uuid} of another size")
            return existing
        return await self._add(sr, new, size, read_write=True)

    async def clone(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._derive(sr, key, new, "clone", read_write=True)

    async def snapshot(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._derive(sr, key, new, "snapshot", read_write=False)

    async def copy(self, sr: Handle, key: str, new: NewVolume, report: Report) -> Volume:
        await report(1.0)
        return await self._derive(sr, key, new, "copy", read_write=True)

    async def destroy(self, sr: Handle, key: str) -> None:
        volume = await self.stat(sr, key)
        self._refuse_holders(volume)
        await self._plugin.journal.write({f"{self._plugin.uuid(sr)}/{key}": None})

    async def resize(self, sr: Handle, key: str, size: int) -> Volume:
        volume = await self.stat(sr, key)
        if not volume.read_write:
            raise ApiError("VDI_READONLY", key)
        if size < volume.virtual_size:
            raise backend_failure(Failure.VDI_SIZE, f"a disk cannot shrink: it has {volume.virtual_size} bytes")
        self._refuse_others(sr, volume, writers_only=False)
        record = self._plugin.record(sr, key)
        return await self._save(sr, msgspec.structs.replace(volume, virtual_size=size), record.origin)

    async def stat(self, sr: Handle, key: str) -> Volume:
        return self._plugin.find(f"dummy:///{self._plugin.uuid(sr)}/{key}")

    async def _derive(self, sr: Handle, key: str, new: NewVolume, how: str, read_write: bool) -> Volume:
        origin = f"{how}:{key}"
        existing = self._plugin.earlier(sr, new.uuid, origin)
        if existing is not None:
            return existing
        source = await self.stat(sr, key)
        self._refuse_others(sr, source, writers_only=True)
        return await self._add(sr, *self._like(source, new), read_write=read_write, origin=origin)

    async def describe(self, sr: Handle, key: str, name: str | None, description: str | None) -> None:
        record = self._plugin.record(sr, key)
        said = {"name": name, "description": description}
        changed = {field: value for field, value in said.items() if value is not None}
        await self._save(sr, msgspec.structs.replace(record.volume, **changed), record.origin)

    async def set(self, sr: Handle, key: str, keys: dict[str, str | None]) -> None:
        record = self._plugin.record(sr, key)
        merged = {name: value for name, value in (record.volume.keys | keys).items() if value is not None}
        await self._save(sr, msgspec.structs.replace(record.volume, keys=merged), record.origin)

    async def revert(self, sr: Handle, snapshot: str, key: str) -> Volume:
        source, record = await self.stat(sr, snapshot), self._plugin.record(sr, key)
        if not record.volume.read_write:
            raise ApiError("VDI_READONLY", key)
        self._refuse_holders(record.volume)
        changed = msgspec.structs.replace(record.volume, virtual_size=source.virtual_size)
        return await self._save(sr, changed, record.origin)

    async def epoch(self, sr: Handle, key: str, vm: str, begin: bool, persistent: bool) -> None:
        """A disk without content has nothing to forget."""
        await self.stat(sr, key)

    def _refuse_holders(self, volume: Volume) -> None:
        for host, held in self._plugin.activated.get(volume.uri[0], {}).items():
            raise ActivatedOnAnotherHost(host, held.dp)

    def _refuse_others(self, sr: Handle, volume: Volume, writers_only: bool) -> None:
        """A disk that this host has activated can be branched and grown: there is no content to be in the way."""
        mine, _ = self._plugin.handles[sr]
        for host, held in self._plugin.activated.get(volume.uri[0], {}).items():
            if host != mine and (held.writable or not writers_only):
                raise ActivatedOnAnotherHost(host, held.dp)

    @staticmethod
    def _like(source: Volume, new: NewVolume) -> tuple[NewVolume, int]:
        named = NewVolume(
            uuid=new.uuid,
            name=new.name or source.name,
            description=new.description or source.description,
            keys=new.keys or source.keys,
            sharable=source.sharable,
        )
        return named, source.virtual_size

    async def _add(self, sr: Handle, new: NewVolume, size: int, read_write: bool, origin: str = "") -> Volume:
        volume = Volume(
            key=new.uuid,
            uuid=new.uuid,
            name=new.name,
            description=new.description,
            read_write=read_write,
            virtual_size=size,
            physical_utilisation=0,
            uri=[f"dummy:///{self._plugin.uuid(sr)}/{new.uuid}"],
            keys=new.keys,
            sharable=new.sharable,
        )
        return await self._save(sr, volume, origin)

    async def _save(self, sr: Handle, volume: Volume, origin: str) -> Volume:
        record: dict[str, Any] = msgspec.to_builtins(_Record(volume=volume, origin=origin))
        await self._plugin.journal.write({f"{self._plugin.uuid(sr)}/{volume.key}": record})
        return volume


class _Datapath(DatapathSkeleton):
    def __init__(self, plugin: DummyPlugin) -> None:
        self._plugin = plugin

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        self._plugin.find(uri)
        return Implementation(kind="file", path="", format="none")

    async def activate(self, uri: str, domain: Domain) -> None:
        self._activate(uri, domain, writable=True)

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        self._activate(uri, domain, writable=False)

    async def deactivate(self, uri: str, domain: Domain) -> None:
        holders = self._plugin.activated.get(uri, {})
        holders.pop(domain.host, None)
        if not holders:
            self._plugin.activated.pop(uri, None)

    async def detach(self, uri: str, domain: Domain) -> None:
        """Nothing to let go of."""

    async def held(self, sr: Handle) -> list[Held]:
        host, uuid = self._plugin.handles[sr]
        mine = [holders.get(host) for uri, holders in self._plugin.activated.items() if uri.split("/")[3] == uuid]
        return [held for held in mine if held is not None]

    async def fence(self, sr: Handle, host: str) -> int:
        uuid = self._plugin.uuid(sr)
        uris = [uri for uri, holders in self._plugin.activated.items() if host in holders and uri.split("/")[3] == uuid]
        for uri in uris:
            await self.deactivate(uri, Domain(host=host, dp=""))
        return len(uris)

    def _activate(self, uri: str, domain: Domain, writable: bool) -> None:
        volume = self._plugin.find(uri)
        holders = self._plugin.activated.setdefault(uri, {})
        for host, held in holders.items():
            if host != domain.host and (held.writable or writable) and not volume.sharable:
                raise ActivatedOnAnotherHost(host, held.dp)
        holders[domain.host] = Held(key=volume.key, uri=uri, dp=domain.dp, writable=writable)


def _parse(record: Any) -> _Record:
    return msgspec.convert(record, _Record)
