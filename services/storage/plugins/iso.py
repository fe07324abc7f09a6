"""The SR type `iso`: a folder of CD images, of this host or mounted from a server. Nothing is ever written to it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import uuid as uuids
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import quote, unquote

import msgspec

from services.storage.plugins import nfs, smb
from services.storage.plugins.errors import Failure, backend_failure, volume_missing
from services.storage.plugins.fixed import FixedVolumes
from services.storage.plugins.holders import Holders
from services.storage.plugins.interface import (
    Domain,
    Handle,
    Held,
    Implementation,
    Probed,
    SrStat,
    Volume,
)
from services.storage.plugins.mounted_point import Failures, Mount, Mounted, ensure, mounted_at, release, visit
from services.storage.plugins.skeleton import DatapathSkeleton, SrSkeleton
from services.storage.settle import settle, settle_or_undo
from shared.bus.contract import Record
from shared.contracts.storage import DriverInfo
from shared.errors import ApiError

log = logging.getLogger("storage.iso")

SUFFIXES = (".iso", ".img")
_WORKERS = 2
"""Threads of one SR: a server that hangs blocks nobody else."""

_A = ParamSpec("_A")
_R = TypeVar("_R")

FAILURES = Failures(mount=Failure.ISO_MOUNT, unmount=Failure.ISO_UNMOUNT)
SMB_VERSIONS = ("1.0", "3.0")
_NAMED_UUID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(?:iso|img)", re.IGNORECASE)
_TOOLS = re.compile(r"(xs|guest)-tools(?:-([^-]+)(?:-(.+))?)?\.iso", re.IGNORECASE)


class Library(Record, frozen=True):
    """Where the images are: `mount` None for a folder of this host, which is `path`; else `path` is inside of what is
    mounted. `tools`: images may be the tools that come with hosts.
    """

    mount: Mount | None
    path: str
    tools: bool = False


def library_of(configuration: dict[str, str]) -> Library:
    """From `location`, and what it needs. Raises SR_BACKEND_FAILURE_94, _225, _226, _227 and what nfs and smb do.

    Without `type`, the location's form tells which one it is; `legacy_mode` is a folder of this host.
    """
    location = configuration.get("location", "")
    if not location:
        raise backend_failure(Failure.LOCATION_MISSING, "The request is missing the location parameter")
    inside = configuration.get("iso_path", "").strip("/")
    if ".." in inside.split("/") or "\0" in inside + location:
        raise backend_failure(Failure.INVALID_ARGUMENT, f"iso_path leaves the folder: {inside!r}")
    match _kind(configuration, location):
        case "local":
            if not location.startswith("/"):
                raise backend_failure(Failure.ISO_PATH_INVALID, f"location must be an absolute path: {location!r}")
            return Library(mount=None, path=os.path.join(location, inside), tools="legacy_mode" in configuration)
        case "nfs":
            return Library(mount=_nfs(configuration, location), path=inside)
        case _:
            return Library(mount=_smb(configuration, location), path=inside)


def _kind(configuration: dict[str, str], location: str) -> str:
    if "legacy_mode" in configuration:
        return "local"
    known = {"nfs_iso": "nfs", "nfs": "nfs", "cifs": "smb", "smb": "smb", "iso_local": "local", "local": "local"}
    if wanted := configuration.get("type", ""):
        if wanted not in known:
            raise backend_failure(Failure.INVALID_ARGUMENT, f"type is cifs, nfs_iso or local, not {wanted!r}")
        return known[wanted]
    if location.startswith(("//", "\\\\")):
        return "smb"
    if ":/" in location:
        return "nfs"
    if location.startswith("/"):
        return "local"
    raise _wrong_location(location)


def _nfs(configuration: dict[str, str], location: str) -> Mount:
    server, separator, path = location.rpartition(":/")
    if not separator or not server:
        raise _wrong_location(location)
    named = {"server": server, "serverpath": f"/{path}"}
    mount = nfs.mount_export(
        nfs.server_of(named), nfs.path_of(named), nfs.version_of(configuration), _options(configuration)
    )
    return _read_only(mount)


def _smb(configuration: dict[str, str], location: str) -> Mount:
    server, path = smb.share_of(location, Failure.ISO_LOCATION_INVALID)
    if not path:
        raise _wrong_location(location)
    version = configuration.get("vers", "") or smb.VERSION
    if version not in SMB_VERSIONS:
        raise backend_failure(Failure.ISO_SMB_VERSION, f"vers is one of {', '.join(SMB_VERSIONS)}, not {version!r}")
    domain, environment = smb.credentials(configuration, "cifspassword")
    return _read_only(smb.mount_share(server, path, version, domain, environment))


def _read_only(mount: Mount) -> Mount:
    kept = (option for option in mount.options if option not in ("rw", "ro"))
    return msgspec.structs.replace(mount, options=("ro", *kept))


def _options(configuration: dict[str, str]) -> str:
    """`options` is written as for mount(8): `-o a,b`."""
    return configuration.get("options", "").replace("-o", " ").strip().replace(" ", ",")


def _wrong_location(location: str) -> ApiError:
    text = f"location is server:/path (NFS), //server/share (SMB) or an absolute path, not {location!r}"
    return backend_failure(Failure.ISO_LOCATION_INVALID, text)


def usable(name: str) -> bool:
    """Whether an image of that name can be a VDI: its location goes through XML and through URIs."""
    if not name.lower().endswith(SUFFIXES) or name.startswith(".") or "/" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # not UTF-8 on the disk
        return False
    return all(character.isprintable() for character in name)


def image_uuid(sr: str, name: str) -> str:
    """Images have no uuid but what their names say; the same on every host and at every scan."""
    match = _NAMED_UUID.fullmatch(name)
    return match[1].lower() if match else str(uuids.uuid5(uuids.UUID(sr), name))


def tools_keys(name: str) -> dict[str, str]:
    """sm_config of an image with the tools for guests, {} for other images."""
    match = _TOOLS.fullmatch(name)
    if match is None:
        return {}
    return {"_sm_config_xs-tools-version": match[2] or "unknown", "_sm_config_xs-tools-build": match[3] or "0"}


def newest_tools(names: list[str]) -> str:
    """Of several images with tools one is the pool's; "" if there is none."""
    found = [name for name in names if _TOOLS.fullmatch(name)]
    return max(found, key=lambda name: [_figures(text) for text in tools_keys(name).values()][::-1], default="")


def _figures(text: str) -> list[int]:
    return [int(figure) for figure in re.findall(r"\d+", text)]


class _Attached:
    """An SR on one host. `place`: the mount point, None for a folder of the host."""

    def __init__(self, uuid: str, host: str, library: Library, place: Path | None) -> None:
        self.uuid, self.host, self.library, self.place = uuid, host, library, place
        self.folder = Path(library.path) if place is None else place / library.path
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"iso-{uuid[:8]}")

    async def run(self, work: Callable[_A, _R], *args: _A.args, **kwargs: _A.kwargs) -> _R:
        """Of the methods that follow, which block."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, partial(work, *args, **kwargs))

    def close(self) -> None:
        self._workers.shutdown(wait=False)

    def check(self) -> None:
        """Raises SR_BACKEND_FAILURE_47."""
        if self.place is not None and mounted_at(self.place) is None:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"nothing is mounted on {self.place} any more")
        if not self.folder.is_dir():
            raise backend_failure(Failure.SR_UNAVAILABLE, f"the folder does not exist: {self.folder}")

    def ls(self) -> list[Volume]:
        self.check()
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if entry.name.lower().endswith(SUFFIXES))
        except OSError as error:
            raise backend_failure(Failure.SR_SCAN, f"cannot list {self.folder}", error.strerror) from error
        for name in names:
            if not usable(name):
                log.warning("SR %s: the image %r cannot be a VDI because of its name", self.uuid, name)
        tools = newest_tools(names) if self.library.tools else ""
        found = (self._volume(name, tools) for name in names if usable(name))
        return [volume for volume in found if volume is not None]

    def volume(self, key: str) -> Volume:
        """Raises VDI_MISSING."""
        found = None
        if usable(key):
            tools = newest_tools(os.listdir(self.folder)) if self.library.tools and tools_keys(key) else ""
            found = self._volume(key, tools)
        if found is None:
            self.check()
            raise volume_missing(self.uuid, key)
        return found

    def _volume(self, name: str, tools: str) -> Volume | None:
        """None: not a file with an image."""
        path = self.folder / name
        try:
            found = path.stat()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(found.st_mode) or not self._inside(path):
            return None
        known = tools_keys(name) if self.library.tools else {}
        label = f"{'guest' if name.startswith('guest') else 'xs'}-tools.iso" if known else name
        if known and name != tools:
            label = f"Old version of {label}"
        return Volume(
            key=name,
            uuid=image_uuid(self.uuid, name),
            name=label,
            description="",
            read_write=False,
            virtual_size=found.st_size,
            physical_utilisation=found.st_size,
            uri=[f"{prefix(self.uuid)}{quote(name)}"],
            keys={"vdi-type": "user", **known, **({"_sm_config_xs-tools": "true"} if known and name == tools else {})},
        )

    def _inside(self, path: Path) -> bool:
        """A server could have links to files of this host."""
        return self.place is None or path.resolve().is_relative_to(self.place)

    def stat(self) -> SrStat:
        self.check()
        space = os.statvfs(self.folder)
        size = max(1, space.f_blocks * space.f_frsize)
        return SrStat(uuid=self.uuid, free_space=space.f_bavail * space.f_frsize, total_space=size)


def prefix(sr: str) -> str:
    """What the URIs of an SR begin with."""
    return f"iso://{sr}/"


class IsoPlugin:
    """`root`: folder for the mount points, `<root>/<host>/<SR>`."""

    def __init__(self, root: Path) -> None:
        self.root = root
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
            type="iso",
            name="ISO",
            description="CD images as files in a folder, of this host or of an NFS or SMB server",
            vendor="xapi-toolstack",
            copyright="LGPL-2.1-only",
            version="1.0",
            required_api_version="5.0",
            features=dict.fromkeys(
                [
                    *("SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_UPDATE", "SR_PROBE"),
                    *("VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_ACTIVATE_READONLY", "VDI_DEACTIVATE"),
                    *("VDI_INTRODUCE", "VDI_UPDATE"),
                ],
                1,
            ),
            configuration={
                "location": "path of a folder, server:/path for NFS, or //server/share for SMB (required)",
                "type": "local, nfs_iso or cifs (default: as the location looks)",
                "legacy_mode": "any value: a folder of this host, which may have the tools for guests",
                "iso_path": "folder below the location",
                "options": "more options for mount.nfs",
                "nfsversion": "version of the NFS protocol",
                "vers": "version of the SMB protocol, 1.0 or 3.0",
                "username": "who logs in at an SMB server",
                "cifspassword": "the password; the database keeps it as a secret",
            },
        )

    async def close(self) -> None:
        """What is mounted stays: QEMU has images open there."""
        for attached in self.handles.values():
            attached.close()

    def attached(self, sr: Handle) -> _Attached:
        try:
            return self.handles[sr]
        except KeyError:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {sr}") from None

    def at(self, uri: str, host: str) -> tuple[_Attached, str]:
        """The attached SR and the key that a disk's URI stands for."""
        sr, _, name = uri.removeprefix("iso://").partition("/")
        return self.attached(handle_of(host, sr)), unquote(name)


def handle_of(host: str, sr: str) -> Handle:
    return Handle(f"{host} {sr}")


class _Sr(SrSkeleton):
    def __init__(self, plugin: IsoPlugin) -> None:
        self._plugin = plugin

    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        """A folder of images has no SR of its own: any can be made of it."""
        library = library_of(configuration)
        if library.mount is None:
            await _need_folder(library.path, Path(library.path))
        return [Probed(configuration=configuration, uuid="")]

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        """Nothing is made. An SR that could not be attached is not made either: its folder is looked for, where it has
        to be mounted in a namespace of its own.
        """
        library = library_of(configuration)
        if library.mount is None:
            await _need_folder(library.path, Path(library.path))
            return configuration
        async with visit(library.mount, self._plugin.root / "visit", FAILURES) as root:
            await _need_folder(f"{library.path} of {library.mount.source}", root / library.path)
        return configuration

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        library = library_of(configuration)
        place = None if library.mount is None else self._plugin.root / host / uuid
        attached = _Attached(uuid, host, library, place)
        fresh = place is not None and mounted_at(place) is None

        async def undo(_: None) -> None:
            if fresh and place is not None:
                await release(place, FAILURES)

        try:
            await settle_or_undo(self._attach(attached), undo)
        except BaseException:
            attached.close()
            raise
        handle = handle_of(host, uuid)
        before, self._plugin.handles[handle] = self._plugin.handles.get(handle), attached
        if before is not None:
            before.close()
        return handle

    async def _attach(self, attached: _Attached) -> None:
        place, mount = attached.place, attached.library.mount
        if place is None or mount is None:
            await attached.run(attached.check)
            return
        await ensure(mount, place, lambda found: _same(mount, found), FAILURES)
        try:
            await attached.run(attached.check)
        except BaseException:
            await release(place, FAILURES)
            raise

    async def detach(self, sr: Handle) -> None:
        attached = self._plugin.handles.get(sr)
        if attached is None:
            return
        if attached.place is not None:
            await settle(release(attached.place, FAILURES))
        self._plugin.handles.pop(sr, None)
        attached.close()

    async def destroy(self, sr: Handle) -> None:
        """The images are not the SR's: they stay."""
        self._plugin.attached(sr)
        await self.detach(sr)

    async def stat(self, sr: Handle) -> SrStat:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.stat)

    async def ls(self, sr: Handle) -> list[Volume]:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.ls)


async def _need_folder(name: str, folder: Path) -> None:
    """Raises SR_BACKEND_FAILURE_226."""
    if not await asyncio.to_thread(os.path.isdir, folder):
        raise backend_failure(Failure.ISO_PATH_INVALID, f"there is no such folder: {name}")


def _same(mount: Mount, found: Mounted) -> bool:
    return found.source.replace("\\", "/").rstrip("/") == mount.source.rstrip("/")


class _Volume(FixedVolumes):
    def __init__(self, plugin: IsoPlugin) -> None:
        self._plugin = plugin

    async def stat(self, sr: Handle, key: str) -> Volume:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.volume, key)


class _Datapath(DatapathSkeleton):
    def __init__(self, plugin: IsoPlugin) -> None:
        self._plugin = plugin

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        attached, key = self._plugin.at(uri, domain.host)
        await attached.run(attached.volume, key)
        return Implementation(kind="file", path=str(attached.folder / key), format="raw")

    async def activate(self, uri: str, domain: Domain) -> None:
        raise ApiError("VDI_READONLY", self._plugin.at(uri, domain.host)[1])

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        attached, key = self._plugin.at(uri, domain.host)
        await attached.run(attached.volume, key)
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
