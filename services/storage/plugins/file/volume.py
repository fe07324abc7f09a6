"""The volume methods of the type `file`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from services.storage.plugins.errors import Failure, backend_failure, sr_full, volume_missing
from services.storage.plugins.file import lease, qcow2
from services.storage.plugins.file.attached import Attached
from services.storage.plugins.file.folder import SUFFIX, Folder, Sidecar, backing_key
from services.storage.plugins.file.qemu_img import NoSpace
from services.storage.plugins.file.tree import Node, ancestors, children
from services.storage.plugins.interface import ActivatedOnAnotherHost, Handle, NewVolume, Report, Volume
from services.storage.plugins.skeleton import VolumeSkeleton
from shared.errors import ApiError

if TYPE_CHECKING:
    from services.storage.plugins.file.plugin import FilePlugin

SECTOR = 512
MAX_DEPTH = 100
"""Images above one another. Each is a file that QEMU keeps open."""


class FileVolume(VolumeSkeleton):
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
    async def _alone(self, attached: Attached, key: str) -> AsyncIterator[None]:
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

    async def _split(self, attached: Attached, key: str, size: int, failure: Failure) -> str:
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

    async def _make(self, attached: Attached, side: Sidecar, build: Callable[[Path], Awaitable[None]]) -> Volume:
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

    async def _need_room(self, attached: Attached, size: int) -> None:
        if not await attached.run(attached.folder.room):
            raise sr_full(size, 0)


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
