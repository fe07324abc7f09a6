"""The SR type `file`: qcow2 images in a folder, which may be shared by several hosts.

Disks that share data do so by backing files. Cloning or snapshotting a writable disk gives its image a second name, a
hidden read-only node; the disk continues in a new empty image over it, and the new disk is another one. The order of
steps is such that a crash anywhere leaves every disk with its content and at most a node that nobody needs.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from services.storage.plugins.errors import Failure, backend_failure, sr_full, volume_missing
from services.storage.plugins.file import lease, qcow2
from services.storage.plugins.file.folder import (
    GUARD,
    MARKER,
    SUFFIX,
    Folder,
    Marker,
    Sidecar,
    backing_key,
    replace_file,
)
from services.storage.plugins.file.lease import Busy, Guard, Taken
from services.storage.plugins.file.qemu_img import NoSpace, QemuImg
from services.storage.plugins.file.tree import Node, ancestors, children
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
from services.storage.plugins.skeleton import SrSkeleton, VolumeSkeleton
from services.storage.settle import settle
from shared.contracts.storage import DriverInfo
from shared.errors import ApiError

log = logging.getLogger("storage.file")

SECTOR = 512
MAX_DEPTH = 100
"""Images above one another. Each is a file that QEMU keeps open."""

_WORKERS = 4
"""Threads for the blocking calls of one SR; a folder whose server hangs blocks nobody else."""

_A = ParamSpec("_A")
_R = TypeVar("_R")


class _Attached:
    """An SR on one host."""

    def __init__(self, folder: Folder, workers: ThreadPoolExecutor) -> None:
        self.folder, self._workers = folder, workers

    async def run(self, work: Callable[_A, _R], *args: _A.args, **kwargs: _A.kwargs) -> _R:
        """Blocking work, in a worker thread and to its end; the system's errors become the catalogue's."""
        try:
            return await settle(self._in_thread(partial(work, *args, **kwargs)))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise sr_full(0, 0) from error
            await settle(self._in_thread(self.folder.check))
            raise backend_failure(Failure.IO, f"SR {self.folder.uuid}: {error}", error.strerror) from error

    async def _in_thread(self, work: Callable[[], _R]) -> _R:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)


class FilePlugin:
    """`lock_timeout`: seconds to wait for another host that rearranges images."""

    def __init__(self, images: QemuImg, lock_timeout: float) -> None:
        self.images = images
        self._lock_timeout = lock_timeout
        self._attached: dict[Handle, _Attached] = {}
        self._workers: dict[Path, ThreadPoolExecutor] = {}
        self.sr = _Sr(self)
        self.volume = _Volume(self)
        self.datapath = _Datapath(self)

    @property
    def traceless(self) -> bool:
        return False

    @property
    def branches_in_use(self) -> bool:
        return False

    def query(self) -> DriverInfo:
        return DriverInfo(
            type="file",
            name="File",
            description="Disks as qcow2 images in a folder",
            vendor="xapi-toolstack",
            copyright="LGPL-2.1-only",
            version="1.0",
            required_api_version="5.0",
            features=dict.fromkeys(
                [
                    *("SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_UPDATE"),
                    *("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE"),
                    *("VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_INTRODUCE", "VDI_UPDATE", "THIN_PROVISIONING"),
                ],
                1,
            ),
            configuration={"location": "absolute path of the folder (required)"},
        )

    async def close(self) -> None:
        for workers in self._workers.values():
            workers.shutdown(wait=False, cancel_futures=True)

    def attach(self, folder: Folder) -> Handle:
        handle = Handle(f"{folder.host} {folder.path}")
        self._attached[handle] = self.unattached(folder)
        return handle

    def detach(self, handle: Handle) -> None:
        gone = self._attached.pop(handle, None)
        if gone is not None and all(other.folder.path != gone.folder.path for other in self._attached.values()):
            self._workers.pop(gone.folder.path).shutdown(wait=False)

    def unattached(self, folder: Folder) -> _Attached:
        workers = self._workers.get(folder.path)
        if workers is None:
            workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"sr-{folder.uuid[:8]}")
            self._workers[folder.path] = workers
        return _Attached(folder, workers)

    def attached(self, handle: Handle) -> _Attached:
        try:
            return self._attached[handle]
        except KeyError:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {handle}") from None

    def at(self, uri: str, host: str) -> tuple[_Attached, str]:
        """The attached SR and the key that a disk's URI stands for."""
        image = Path(uri.removeprefix("file://"))
        return self.attached(Handle(f"{host} {image.parent}")), image.name.removesuffix(SUFFIX)

    @asynccontextmanager
    async def locked(self, sr: _Attached, key: str | None = None) -> AsyncIterator[None]:
        """The SR's guard, or that of one disk's leases. Raises SR_VDI_LOCKING_FAILED."""
        path = sr.folder.path / GUARD if key is None else lease.guard_path(sr.folder.path, key)
        guard = await self.patiently(sr, Guard, path)
        try:
            yield
        finally:
            guard.close()

    async def patiently(self, sr: _Attached, work: Callable[_A, _R], *args: _A.args, **kwargs: _A.kwargs) -> _R:
        """Repeats work that finds a guard taken, as long as that may be."""
        end = time.monotonic() + self._lock_timeout
        delay = 0.002
        while True:
            try:
                return await sr.run(work, *args, **kwargs)
            except Busy as busy:
                if time.monotonic() > end:
                    log.error("waited %s s for the lock %s in vain", self._lock_timeout, busy)
                    raise ApiError("SR_VDI_LOCKING_FAILED") from busy
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, 0.1)


class _Sr(SrSkeleton):
    def __init__(self, plugin: FilePlugin) -> None:
        self._plugin = plugin

    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        path = _location(configuration)
        sr = self._plugin.unattached(Folder(path, "", ""))
        marker = await sr.run(_read_marker, path)
        return [Probed(configuration=configuration, uuid=marker.uuid if marker else "")]

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        path = _location(configuration)
        sr = self._plugin.unattached(Folder(path, uuid, ""))
        try:
            await asyncio.get_running_loop().run_in_executor(None, _prepare, path, Marker(uuid, name, description))
        except OSError as error:
            raise backend_failure(
                Failure.SR_CREATE, f"cannot create an SR in {path}: {error.strerror}", error.strerror
            ) from error
        await sr.run(sr.folder.check_writable)
        return configuration

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle:
        sr = self._plugin.unattached(Folder(_location(configuration), uuid, host))
        await sr.run(sr.folder.check)
        await sr.run(sr.folder.check_writable)
        async with self._plugin.locked(sr):
            await sr.run(sr.folder.sweep)
        return self._plugin.attach(sr.folder)

    async def detach(self, sr: Handle) -> None:
        self._plugin.detach(sr)

    async def destroy(self, sr: Handle) -> None:
        attached = self._plugin.attached(sr)
        async with self._plugin.locked(attached):
            if await attached.run(attached.folder.ls):
                raise ApiError("SR_NOT_EMPTY")
            await attached.run(_remove, attached.folder)
        self._plugin.detach(sr)

    async def stat(self, sr: Handle) -> SrStat:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.folder.stat)

    async def ls(self, sr: Handle) -> list[Volume]:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.folder.ls)


class _Volume(VolumeSkeleton):
    def __init__(self, plugin: FilePlugin) -> None:
        self._plugin = plugin
        self._images = plugin.images

    async def create(self, sr: Handle, new: NewVolume, size: int) -> Volume:
        attached = self._plugin.attached(sr)
        size = _whole_sectors(size)
        found = await attached.run(_existing, attached.folder, new.uuid, "")
        if found is not None:
            if found.virtual_size != size:
                raise backend_failure(Failure.VDI_EXISTS, f"there is a disk {new.uuid} of another size")
            return found
        side = Sidecar(uuid=new.uuid, name=new.name, description=new.description, keys=new.keys, virtual_size=size)
        return await self._make(attached, side, lambda draft: self._images.create(draft, size, "", Failure.VDI_CREATE))

    async def clone(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._branch(sr, key, new, Failure.VDI_CLONE)

    async def snapshot(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._branch(sr, key, new, Failure.VDI_SNAPSHOT)

    async def copy(self, sr: Handle, key: str, new: NewVolume, report: Report) -> Volume:
        attached = self._plugin.attached(sr)
        folder = attached.folder
        origin = f"copy:{key}"
        found = await attached.run(_existing, folder, new.uuid, origin)
        if found is not None:
            return found
        await attached.run(folder.check_chain, key)
        source = await attached.run(folder.volume, key)
        return await self._make(
            attached,
            _derived(source, new, origin),
            lambda draft: self._images.convert(folder.image(key), draft, report),
        )

    async def destroy(self, sr: Handle, key: str) -> None:
        attached = self._plugin.attached(sr)
        async with self._alone(attached, key):
            for holder, _ in await attached.run(lease.others, attached.folder.path, key):
                raise ActivatedOnAnotherHost(holder.host, holder.dp)
            await attached.run(_destroy, attached.folder, key)

    async def resize(self, sr: Handle, key: str, size: int) -> Volume:
        attached = self._plugin.attached(sr)
        size = _whole_sectors(size)
        async with self._alone(attached, key):
            volume = await attached.run(attached.folder.volume, key)
            if not volume.read_write:
                raise ApiError("VDI_READONLY", key)
            if size < volume.virtual_size:
                raise backend_failure(
                    Failure.VDI_SIZE, f"a disk cannot shrink: it has {volume.virtual_size} bytes, {size} were asked for"
                )
            for holder, _ in await attached.run(lease.others, attached.folder.path, key):
                raise ActivatedOnAnotherHost(holder.host, holder.dp)
            if size > volume.virtual_size:
                try:
                    await self._images.resize(attached.folder.image(key), size)
                except NoSpace:
                    raise sr_full(size, await attached.run(attached.folder.room)) from None
                side = await attached.run(attached.folder.read_sidecar, key)
                await attached.run(attached.folder.write_sidecar, key, msgspec.structs.replace(side, virtual_size=size))
            return await attached.run(attached.folder.volume, key)

    async def stat(self, sr: Handle, key: str) -> Volume:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.folder.volume, key)

    @asynccontextmanager
    async def _alone(self, attached: _Attached, key: str) -> AsyncIterator[None]:
        """Nobody rearranges images or activates this one meanwhile, on any host."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._plugin.locked(attached))
            await stack.enter_async_context(self._plugin.locked(attached, key))
            yield

    async def _branch(self, sr: Handle, key: str, new: NewVolume, failure: Failure) -> Volume:
        attached = self._plugin.attached(sr)
        folder = attached.folder
        origin = f"{failure.name}:{key}"
        async with self._alone(attached, key):
            found = await attached.run(_existing, folder, new.uuid, origin)
            if found is not None:
                return found
            for holder, writes in await attached.run(lease.others, folder.path, key):
                if writes:
                    raise ActivatedOnAnotherHost(holder.host, holder.dp)
            await attached.run(folder.check_chain, key)
            source = await attached.run(folder.volume, key)
            base = await attached.run(_base, folder, key, source)
            size = source.virtual_size
            if not base:
                base = await self._split(attached, key, size, failure)
            side = _derived(source, new, origin, read_only=failure is Failure.VDI_SNAPSHOT)
            return await self._make(
                attached, side, lambda draft: self._images.create(draft, size, base + SUFFIX, failure)
            )

    async def _split(self, attached: _Attached, key: str, size: int, failure: Failure) -> str:
        """Moves what a disk holds into a new hidden node, whose key is returned; the disk goes on above it."""
        folder = attached.folder
        node = str(uuid.uuid4())
        try:
            await self._need_room(attached, size)
            await attached.run(
                folder.write_sidecar, node, Sidecar(uuid=node, hidden=True, read_only=True, virtual_size=size)
            )
            await attached.run(folder.share, key, node)
            await self._images.create(folder.draft(key), size, node + SUFFIX, failure)
            await attached.run(folder.publish, key)
        except BaseException as error:
            # whether the switch happened is read from the images, never guessed: only what nobody needs goes away
            await attached.run(_undo_split, folder, key, node)
            if isinstance(error, NoSpace):
                raise sr_full(size, await attached.run(folder.room)) from None
            raise
        return node

    async def _make(self, attached: _Attached, side: Sidecar, build: Callable[[Path], Awaitable[None]]) -> Volume:
        """Builds an image beside the others, then makes it the disk's: all or nothing."""
        folder, key = attached.folder, side.uuid
        try:
            await self._need_room(attached, side.virtual_size)
            await build(folder.draft(key))
            return await attached.run(_finish, folder, key, side)
        except BaseException as error:
            await attached.run(_undo, folder, key)
            if isinstance(error, NoSpace) or (isinstance(error, ApiError) and error.code == "SR_FULL"):
                raise sr_full(side.virtual_size, await attached.run(folder.room)) from error
            raise

    async def _need_room(self, attached: _Attached, size: int) -> None:
        if not await attached.run(attached.folder.room):
            raise sr_full(size, 0)


class _Datapath:
    def __init__(self, plugin: FilePlugin) -> None:
        self._plugin = plugin

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        sr, key = self._plugin.at(uri, domain.host)
        await sr.run(sr.folder.check_chain, key)
        return Implementation(kind="file", path=str(sr.folder.image(key)), format="qcow2")

    async def activate(self, uri: str, domain: Domain) -> None:
        await self._acquire(uri, domain, writable=True)

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        await self._acquire(uri, domain, writable=False)

    async def deactivate(self, uri: str, domain: Domain) -> None:
        sr, key = self._plugin.at(uri, domain.host)
        await self._plugin.patiently(sr, lease.release, sr.folder.path, key, domain.host)

    async def detach(self, uri: str, domain: Domain) -> None:
        """Nothing to let go of."""

    async def held(self, sr: Handle) -> list[Held]:
        attached = self._plugin.attached(sr)
        leases = await attached.run(lease.held, attached.folder.path, attached.folder.host)
        return [
            Held(key=key, uri=attached.folder.uri(key), dp=found.dp, writable=writes) for key, found, writes in leases
        ]

    async def fence(self, sr: Handle, host: str) -> int:
        attached = self._plugin.attached(sr)
        return await self._plugin.patiently(attached, lease.fence, attached.folder.path, host)

    async def _acquire(self, uri: str, domain: Domain, writable: bool) -> None:
        sr, key = self._plugin.at(uri, domain.host)
        try:
            await self._plugin.patiently(sr, lease.acquire, sr.folder.path, key, domain, writable)
        except Taken as taken:
            raise ActivatedOnAnotherHost(taken.lease.host, taken.lease.dp) from taken


def _location(configuration: dict[str, str]) -> Path:
    """Raises SR_BACKEND_FAILURE_94, _1."""
    location = configuration.get("location", "")
    if not location:
        raise backend_failure(Failure.LOCATION_MISSING, "The request is missing the location parameter")
    if not location.startswith("/") or "\0" in location:
        raise backend_failure(Failure.INVALID_ARGUMENT, f"location must be an absolute path: {location!r}")
    return Path(location)


def _whole_sectors(size: int) -> int:
    if size <= 0:
        raise backend_failure(Failure.VDI_SIZE, f"a disk of {size} bytes makes no sense")
    return -(-size // SECTOR) * SECTOR


def _derived(source: Volume, new: NewVolume, origin: str, read_only: bool = False) -> Sidecar:
    return Sidecar(
        uuid=new.uuid,
        name=new.name or source.name,
        description=new.description or source.description,
        keys=new.keys or source.keys,
        read_only=read_only,
        virtual_size=source.virtual_size,
        origin=origin,
    )


# What follows blocks and runs in worker threads.


def _read_marker(path: Path) -> Marker | None:
    """None: a folder without an SR. Raises SR_BACKEND_FAILURE_47."""
    if not path.is_dir():
        raise backend_failure(Failure.SR_UNAVAILABLE, f"the folder does not exist: {path}")
    try:
        return msgspec.json.decode((path / MARKER).read_bytes(), type=Marker)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise backend_failure(Failure.SR_UNAVAILABLE, f"cannot read {path / MARKER}: {error}") from error


def _prepare(path: Path, marker: Marker) -> None:
    path.mkdir(exist_ok=True)
    found = _read_marker(path)
    if found is not None and found.uuid != marker.uuid:
        raise backend_failure(Failure.SR_EXISTS, f"the folder holds another SR, {found.uuid}: {path}")
    if found is None:
        replace_file(path / MARKER, msgspec.json.encode(marker))


def _remove(folder: Folder) -> None:
    for key in folder.image_keys():
        folder.remove(key)
    shutil.rmtree(folder.path / lease.FOLDER)
    (folder.path / MARKER).unlink()
    (folder.path / GUARD).unlink()
    try:
        folder.path.rmdir()
    except OSError as error:
        log.info("SR %s: its folder stays: %s", folder.uuid, error)


def _existing(folder: Folder, key: str, origin: str) -> Volume | None:
    """The disk that an earlier run of the same request made. Raises SR_BACKEND_FAILURE_43 if it is another one."""
    if not folder.image(key).exists():
        return None
    if folder.read_sidecar(key).origin != origin:
        raise backend_failure(Failure.VDI_EXISTS, f"there is a disk {key} already")
    return folder.volume(key)


def _finish(folder: Folder, key: str, side: Sidecar) -> Volume:
    folder.write_sidecar(key, side)
    folder.publish(key)
    return folder.volume(key)


def _undo(folder: Folder, key: str) -> None:
    """For a disk that was not there before. It may be finished already when its maker is cancelled."""
    folder.draft(key).unlink(missing_ok=True)
    folder.remove(key)


def _undo_split(folder: Folder, key: str, node: str) -> None:
    folder.draft(key).unlink(missing_ok=True)
    if not folder.image(node).exists():
        folder.sidecar(node).unlink(missing_ok=True)
    else:
        folder.collect_garbage()


def _base(folder: Folder, key: str, source: Volume) -> str:
    """The existing node that a branch of a disk can grow from; "" when the disk holds data of its own."""
    header = folder.header(key)
    nodes, _ = folder.nodes()
    table: dict[str, Node] = {node.key: node for node in nodes}
    if len(ancestors(table, key)) >= MAX_DEPTH:
        raise backend_failure(Failure.CHAIN_TOO_LONG, f"the disk {key} is {MAX_DEPTH} images deep; copy it")
    if not source.read_write:
        return key
    return backing_key(header) if header.backing and qcow2.is_blank(folder.image(key), header) else ""


def _destroy(folder: Folder, key: str) -> None:
    image, side = folder.image(key), folder.sidecar(key)
    if not image.exists():
        folder.check()
        if not side.exists():
            raise volume_missing(folder.uuid, key)
        side.unlink()
        return
    if folder.read_sidecar(key).hidden:
        raise volume_missing(folder.uuid, key)
    nodes, damaged = folder.nodes()
    if children(nodes, key) or set(damaged) - {key}:
        # somebody's data, or, with a damaged image about, perhaps somebody's
        known = folder.read_sidecar(key)
        folder.write_sidecar(key, msgspec.structs.replace(known, hidden=True, read_only=True))
        return
    folder.remove(key)
    folder.collect_garbage()
