"""The SR type `udev`: removable devices, as links to them in a folder that udev keeps. They come and go."""

from __future__ import annotations

import asyncio
import datetime
import os
import stat
import uuid as uuids
from pathlib import Path
from urllib.parse import quote, unquote

from services.storage.plugins.errors import Failure, backend_failure, volume_missing
from services.storage.plugins.fixed import FixedVolumes
from services.storage.plugins.holders import Holders
from services.storage.plugins.interface import Domain, Handle, Held, Implementation, Probed, SrStat, Volume
from services.storage.plugins.skeleton import DatapathSkeleton, SrSkeleton
from shared.contracts.storage import DriverInfo
from shared.errors import ApiError

SECTOR = 512
"""Bytes of the kernel's sectors, whatever a device's own are."""

CD_MAJOR = 11
_SYSFS = Path("/sys/dev/block")


class _Attached:
    """An SR on one host. The methods block."""

    def __init__(self, uuid: str, host: str, folder: Path) -> None:
        self.uuid, self.host, self.folder = uuid, host, folder

    def ls(self) -> list[Volume]:
        """Without the folder there is no device: udev makes it with the first."""
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise backend_failure(Failure.SR_SCAN, f"cannot list {self.folder}", error.strerror) from error
        found = (self._volume(str(self.folder / name)) for name in names if name.isprintable())
        return [volume for volume in found if volume is not None]

    def volume(self, key: str) -> Volume:
        """Raises VDI_MISSING."""
        inside = key.isprintable() and os.path.dirname(key) == str(self.folder) and os.path.basename(key) != ".."
        found = self._volume(key) if inside else None
        if found is None:
            raise volume_missing(self.uuid, key)
        return found

    def _volume(self, path: str) -> Volume | None:
        """None: no block device (any more)."""
        try:
            device, link = os.stat(path), os.lstat(path)
        except OSError:
            return None
        if not stat.S_ISBLK(device.st_mode):
            return None
        number = (os.major(device.st_rdev), os.minor(device.st_rdev))
        facts = _SYSFS / f"{number[0]}:{number[1]}"
        size = int(_read(facts / "size") or 0) * SECTOR
        hardware = " ".join(filter(None, (_read(facts / "device/vendor"), _read(facts / "device/model"))))
        plugged = datetime.datetime.fromtimestamp(link.st_ctime, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        usb = _usb_path(facts)
        return Volume(
            key=path,
            uuid=str(uuids.uuid5(uuids.UUID(self.uuid), path)),
            name=hardware or os.path.basename(os.path.realpath(path)),
            description=os.path.realpath(path),
            read_write=number[0] != CD_MAJOR and _read(facts / "ro") != "1",
            virtual_size=size,
            physical_utilisation=size,
            uri=[f"{prefix(self.uuid)}{quote(path, safe='')}"],
            keys={"_sm_config_hotplugged_at": plugged, **({"_sm_config_usb_path": usb} if usb else {})},
        )


def _read(fact: Path) -> str:
    """A file of sysfs, "" if there is none."""
    try:
        return fact.read_text().strip()
    except OSError:
        return ""


def _usb_path(facts: Path) -> str:
    """Bus and ports, such as `1-1.4`; "" for what is not plugged into USB."""
    above = facts.resolve().parents
    return next((place.name for place in above if (place / "busnum").exists() and (place / "devpath").exists()), "")


def prefix(sr: str) -> str:
    """What the URIs of an SR begin with."""
    return f"udev://{sr}/"


def location_of(configuration: dict[str, str]) -> Path:
    """Raises SR_BACKEND_FAILURE_94, _1."""
    location = configuration.get("location", "")
    if not location:
        raise backend_failure(Failure.LOCATION_MISSING, "The request is missing the location parameter")
    if not location.startswith("/") or not location.isprintable():
        raise backend_failure(Failure.INVALID_ARGUMENT, f"location must be an absolute path: {location!r}")
    return Path(location)


class UdevPlugin:
    def __init__(self) -> None:
        self.handles: dict[Handle, _Attached] = {}
        self.holders = Holders()
        self.sr = _Sr(self)
        self.volume = _Volume(self)
        self.datapath = _Datapath(self)

    @property
    def traceless(self) -> bool:
        return True

    @property
    def branches_in_use(self) -> bool:
        return False

    def query(self) -> DriverInfo:
        return DriverInfo(
            type="udev",
            name="udev",
            description="Removable devices of a host, as udev finds them",
            vendor="xapi-toolstack",
            copyright="LGPL-2.1-only",
            version="1.0",
            required_api_version="5.0",
            features=dict.fromkeys(
                [
                    *("SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_UPDATE"),
                    *("VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE", "VDI_INTRODUCE", "VDI_UPDATE"),
                ],
                1,
            ),
            configuration={"location": "path of the folder with links to devices (required)"},
        )

    async def close(self) -> None:
        """Nothing runs, nothing is open."""

    def attached(self, sr: Handle) -> _Attached:
        try:
            return self.handles[sr]
        except KeyError:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {sr}") from None

    def at(self, uri: str, host: str) -> tuple[_Attached, str]:
        """The attached SR and the key that a disk's URI stands for."""
        sr, _, path = uri.removeprefix("udev://").partition("/")
        return self.attached(Handle(f"{host} {sr}")), unquote(path)


class _Sr(SrSkeleton):
    def __init__(self, plugin: UdevPlugin) -> None:
        self._plugin = plugin

    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        location_of(configuration)
        return [Probed(configuration=configuration, uuid="")]

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        location_of(configuration)
        return configuration

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        handle = Handle(f"{host} {uuid}")
        self._plugin.handles[handle] = _Attached(uuid, host, location_of(configuration))
        return handle

    async def detach(self, sr: Handle) -> None:
        self._plugin.handles.pop(sr, None)

    async def destroy(self, sr: Handle) -> None:
        """The devices are not the SR's: they stay."""
        self._plugin.attached(sr)
        await self.detach(sr)

    async def stat(self, sr: Handle) -> SrStat:
        attached = self._plugin.attached(sr)
        total = sum(volume.virtual_size for volume in await self.ls(sr))
        return SrStat(uuid=attached.uuid, free_space=0, total_space=total)

    async def ls(self, sr: Handle) -> list[Volume]:
        return await asyncio.to_thread(self._plugin.attached(sr).ls)


class _Volume(FixedVolumes):
    def __init__(self, plugin: UdevPlugin) -> None:
        self._plugin = plugin

    async def stat(self, sr: Handle, key: str) -> Volume:
        return await asyncio.to_thread(self._plugin.attached(sr).volume, key)


class _Datapath(DatapathSkeleton):
    def __init__(self, plugin: UdevPlugin) -> None:
        self._plugin = plugin

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        """The device itself, not the link: that may come to be another's while a VM has it open."""
        attached, key = self._plugin.at(uri, domain.host)
        await asyncio.to_thread(attached.volume, key)
        return Implementation(kind="block", path=await asyncio.to_thread(os.path.realpath, key), format="raw")

    async def activate(self, uri: str, domain: Domain) -> None:
        """Raises VDI_READONLY."""
        attached, key = self._plugin.at(uri, domain.host)
        if not (await asyncio.to_thread(attached.volume, key)).read_write:
            raise ApiError("VDI_READONLY", key)
        self._plugin.holders.acquire(key, uri, domain, writable=True)

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        attached, key = self._plugin.at(uri, domain.host)
        await asyncio.to_thread(attached.volume, key)
        self._plugin.holders.acquire(key, uri, domain, writable=False)

    async def deactivate(self, uri: str, domain: Domain) -> None:
        self._plugin.holders.release(uri, domain.host)

    async def detach(self, uri: str, domain: Domain) -> None:
        """Nothing to let go of."""

    async def held(self, sr: Handle) -> list[Held]:
        attached = self._plugin.attached(sr)
        return self._plugin.holders.of(attached.host, prefix(attached.uuid))

    async def fence(self, sr: Handle, host: str) -> int:
        return self._plugin.holders.fence(host, prefix(self._plugin.attached(sr).uuid))
