"""The volume methods of the type `file`."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from services.storage.live import Live
from services.storage.plugins.errors import Failure, backend_failure, in_use, sr_full
from services.storage.plugins.file import comparing, qcow2, tracking
from services.storage.plugins.file.attached import Attached
from services.storage.plugins.file.branching import Branching, need_room
from services.storage.plugins.file.folder import RAW, SUFFIX, Folder, Sidecar, first, sync
from services.storage.plugins.file.qemu_img import NoSpace
from services.storage.plugins.interface import Changed, Handle, NewVolume, Range, Report, Volume
from services.storage.plugins.skeleton import VolumeSkeleton
from shared.errors import ApiError

if TYPE_CHECKING:
    from services.storage.plugins.file.plugin import FilePlugin

log = logging.getLogger("storage.file")

SECTOR = 512
TYPE = "vdi-type"
METADATA_ONLY = "cbt_metadata"
SNAPSHOT_KEYS = ("is_a_snapshot", "snapshot_of", "snapshot_time")


class FileVolume(VolumeSkeleton):
    def __init__(self, plugin: FilePlugin, live: Live) -> None:
        self._plugin = plugin
        self._images = plugin.images
        self._live = live
        self._branching = Branching(live)

    async def create(self, sr: Handle, new: NewVolume, size: int) -> Volume:
        attached = self._plugin.attached(sr)
        size = _whole_sectors(size)
        found = await attached.run(_existing, attached.folder, new.uuid, "")
        if found is not None:
            if found.virtual_size != size:
                raise backend_failure(Failure.VDI_EXISTS, f"there is a disk {new.uuid} of another size")
            return found
        side = Sidecar(
            uuid=new.uuid,
            name=new.name,
            description=new.description,
            keys=new.keys,
            virtual_size=size,
            read_only=new.read_only,
            sharable=new.sharable,
        )
        if new.sharable:
            await need_room(attached, size)
            return await attached.run(_make_raw, attached.folder, msgspec.structs.replace(side, raw=True))
        return await self._make(attached, side, lambda draft: attached.run(qcow2.create, draft, size, ""))

    async def clone(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._branch(sr, key, new, Failure.VDI_CLONE)

    async def snapshot(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        return await self._branch(sr, key, new, Failure.VDI_SNAPSHOT)

    async def copy(self, sr: Handle, key: str, new: NewVolume, report: Report) -> Volume:
        """The caller has the source open for reading, so that nobody writes to it or merges its images."""
        attached = self._plugin.attached(sr)
        folder = attached.folder
        origin = f"copy:{key}"
        found = await attached.run(_existing, folder, new.uuid, origin)
        if found is not None:
            return found
        [top, *_] = await attached.run(folder.chain, key)
        source = await attached.run(folder.volume, key)
        return await self._make(
            attached,
            _derived(source, new, origin),
            lambda draft: self._images.convert(folder.image(top), draft, report),
        )

    async def destroy(self, sr: Handle, key: str) -> None:
        attached = self._plugin.attached(sr)
        async with attached.alone(key):
            await attached.refuse_holders(key)
            side = await attached.run(attached.folder.disk, key)
            await self._quiet(attached, key, side)
            await attached.run(_destroy, attached.folder, key)
        self._plugin.wake(attached)

    async def resize(self, sr: Handle, key: str, size: int) -> Volume:
        attached = self._plugin.attached(sr)
        folder = attached.folder
        size = _whole_sectors(size)
        async with attached.alone(key):
            volume = await attached.run(folder.volume, key)
            if not volume.read_write:
                raise ApiError("VDI_READONLY", key)
            if size < volume.virtual_size:
                raise backend_failure(
                    Failure.VDI_SIZE, f"a disk cannot shrink: it has {volume.virtual_size} bytes, {size} were asked for"
                )
            writer = await attached.writer_here(key)
            if writer is None or volume.sharable:
                await attached.refuse_holders(key)
            if volume.sharable:
                return await attached.run(_resize_raw, folder, key, size)
            chain = await attached.run(folder.chain, key)
            if size > volume.virtual_size:
                await attached.quiet(chain)
                if writer is not None:
                    await self._branching.align(attached, key, writer.dp, Failure.VDI_RESIZE)
                    await self._live.resize(folder.host, writer.dp, size)
                else:
                    try:
                        await self._images.resize(folder.image(chain[0]), size)
                    except NoSpace:
                        raise sr_full(size, await attached.run(folder.room)) from None
                side = await attached.run(folder.read_sidecar, key)
                await attached.run(folder.write_sidecar, key, msgspec.structs.replace(side, virtual_size=size))
            return await attached.run(folder.volume, key)

    async def stat(self, sr: Handle, key: str) -> Volume:
        attached = self._plugin.attached(sr)
        return await attached.run(attached.folder.volume, key)

    # -- what is known of a disk -------------------------------------------------------------------------------------

    async def describe(self, sr: Handle, key: str, name: str | None, description: str | None) -> None:
        said = {"name": name, "description": description}
        attached = self._plugin.attached(sr)
        async with attached.locked():
            side = await attached.run(attached.folder.disk, key)
            changed = {field: value for field, value in said.items() if value is not None}
            await attached.run(attached.folder.write_sidecar, key, msgspec.structs.replace(side, **changed))

    async def set(self, sr: Handle, key: str, keys: dict[str, str | None]) -> None:
        attached = self._plugin.attached(sr)
        async with attached.locked():
            side = await attached.run(attached.folder.disk, key)
            merged = {name: value for name, value in (side.keys | keys).items() if value is not None}
            if merged != side.keys:
                await attached.run(attached.folder.write_sidecar, key, msgspec.structs.replace(side, keys=merged))

    # -- branches ----------------------------------------------------------------------------------------------------

    async def revert(self, sr: Handle, snapshot: str, key: str) -> Volume:
        """One step: the disk's sidecar names a new image over the snapshot's. What it held becomes garbage."""
        attached = self._plugin.attached(sr)
        folder = attached.folder
        async with attached.alone(snapshot, key):
            await attached.refuse_holders(key)
            side, source = await attached.run(folder.disk, key), await attached.run(folder.disk, snapshot)
            if side.read_only:
                raise ApiError("VDI_READONLY", key)
            await attached.run(folder.top, key)
            await self._quiet(attached, key, side)
            base = await self._branching.freeze(attached, snapshot, Failure.VDI_SNAPSHOT)
            overlay = await self._branching.overlay(attached, base)
            known = await attached.run(tracking.reverted, folder, side, snapshot, source, base)
            size = (await attached.run(folder.header, base)).virtual_size
            changed = msgspec.structs.replace(side, image=overlay, reset="", tracking=known, virtual_size=size)
            await attached.run(folder.write_sidecar, key, changed)
            await attached.run(folder.collect_garbage)
            volume = await attached.run(folder.volume, key)
        self._plugin.wake(attached)
        return volume

    async def compose(self, sr: Handle, child: str, parent: str) -> None:
        """The parent is no disk of its own any more. Repeating it changes nothing."""
        attached = self._plugin.attached(sr)
        folder = attached.folder
        async with attached.alone(child, parent):
            await attached.refuse_holders(child, parent)
            tree = await attached.run(folder.tree)
            below = tree.disks.get(parent)
            above = tree.chain_of(child)
            if below is None and len(above) > 1:
                return  # done before
            await attached.run(folder.disk, parent)
            await attached.run(folder.chain, child)
            await attached.quiet([*above, *tree.chain_of(parent)])
            lowest = above[-1]
            if lowest not in tree.chain_of(parent):
                users = set(tree.users(lowest)) - {child}
                if users:
                    raise backend_failure(
                        Failure.INVALID_ARGUMENT, f"other disks have images of {child} too: {', '.join(sorted(users))}"
                    )
                base = await self._branching.freeze(attached, parent, Failure.VDI_SNAPSHOT)
                await self._images.rebase(folder.image(lowest), base + SUFFIX)
            await attached.run(_destroy, folder, parent)
        self._plugin.wake(attached)

    async def similar_content(self, sr: Handle, key: str) -> list[Volume]:
        attached = self._plugin.attached(sr)
        return await attached.run(_similar, attached.folder, key)

    async def compare(self, sr: Handle, key: str, base: str) -> list[Range]:
        attached = self._plugin.attached(sr)
        async with attached.alone(key, base):
            for each in (key, base):
                if await attached.writer_here(each) is not None:
                    raise in_use(each, "compare")
            return await attached.run(comparing.differences, attached.folder, key, base)

    async def epoch(self, sr: Handle, key: str, vm: str, begin: bool, persistent: bool) -> None:
        """A disk that forgets is frozen when its first run begins, and begins each run with what it was then."""
        if not begin:
            return
        attached = self._plugin.attached(sr)
        folder = attached.folder
        async with attached.alone(key):
            side = await attached.run(folder.disk, key)
            if persistent:
                if side.reset:
                    await attached.run(folder.write_sidecar, key, msgspec.structs.replace(side, reset=""))
                return
            await attached.refuse_holders(key)
            await self._quiet(attached, key, side)
            base = side.reset or await self._branching.freeze(attached, key, Failure.VDI_CLONE)
            side = await attached.run(folder.disk, key)
            chain = await attached.run(folder.chain, key)
            fresh = chain[1:2] == [base] and await attached.run(folder.adds_nothing, chain[0])
            overlay = first(key, side) if fresh else await self._branching.overlay(attached, base)
            size = (await attached.run(folder.header, base)).virtual_size
            changed = msgspec.structs.replace(side, image=overlay, reset=base, virtual_size=size)
            if changed != side:
                await attached.run(folder.write_sidecar, key, changed)
                await attached.run(folder.collect_garbage)

    # -- changed blocks ----------------------------------------------------------------------------------------------

    async def enable_cbt(self, sr: Handle, key: str) -> None:
        attached = self._plugin.attached(sr)
        async with attached.locked():
            await attached.run(tracking.begin, attached.folder, key)

    async def disable_cbt(self, sr: Handle, key: str) -> None:
        attached = self._plugin.attached(sr)
        async with attached.locked():
            await attached.run(tracking.end, attached.folder, key)
        self._plugin.wake(attached)

    async def data_destroy(self, sr: Handle, key: str) -> None:
        attached = self._plugin.attached(sr)
        folder = attached.folder
        async with attached.alone(key):
            side = await attached.run(folder.disk, key)
            if side.empty:
                return
            await attached.run(folder.top, key)
            await attached.refuse_holders(key)
            await self._quiet(attached, key, side)
            size = (await attached.run(folder.volume, key)).virtual_size
            changed = msgspec.structs.replace(
                side, empty=True, image="", virtual_size=size, keys=side.keys | {TYPE: METADATA_ONLY}
            )
            await attached.run(folder.write_sidecar, key, changed)
            await attached.run(folder.collect_garbage)
        self._plugin.wake(attached)

    async def changed_blocks(self, sr: Handle, key: str, later: str) -> Changed:
        attached = self._plugin.attached(sr)
        async with attached.alone(key, later):
            if await attached.writer_here(later) is not None:
                raise in_use(later, "list_changed_blocks")
            return await attached.run(tracking.changed, attached.folder, key, later)

    # -- parts -------------------------------------------------------------------------------------------------------

    async def _branch(self, sr: Handle, key: str, new: NewVolume, failure: Failure) -> Volume:
        attached = self._plugin.attached(sr)
        folder = attached.folder
        origin = f"{failure.name}:{key}"
        read_only = failure is Failure.VDI_SNAPSHOT
        async with attached.alone(key):
            found = await attached.run(_existing, folder, new.uuid, origin)
            if found is not None:
                return found
            await attached.run(folder.chain, key)
            source = await attached.run(folder.volume, key)
            base = await self._branching.freeze(attached, key, failure)
            side = _derived(source, new, origin, read_only)
            if read_only:
                known = await attached.run(tracking.of_snapshot, folder, key, base)
                side = msgspec.structs.replace(side, image=base, tracking=known)
                await attached.run(folder.write_sidecar, new.uuid, side)
                await attached.run(tracking.continue_from, folder, key, new.uuid, base)
                volume = await attached.run(folder.volume, new.uuid)
            else:
                size = source.virtual_size
                volume = await self._make(
                    attached, side, lambda draft: attached.run(qcow2.create, draft, size, base + SUFFIX)
                )
        self._plugin.wake(attached)
        return volume

    async def _make(self, attached: Attached, side: Sidecar, build: Callable[[Path], Awaitable[None]]) -> Volume:
        """Builds an image beside the others, then makes it the disk's: all or nothing."""
        folder, key = attached.folder, side.uuid
        image = await attached.run(_free_name, folder, key)
        side = msgspec.structs.replace(side, image="" if image == key else image)
        try:
            await need_room(attached, side.virtual_size)
            await build(folder.draft(image))
            return await attached.run(_finish, folder, key, image, side)
        except BaseException as error:
            await attached.run(_undo, folder, key, image)
            if isinstance(error, NoSpace) or (isinstance(error, ApiError) and error.code == "SR_FULL"):
                raise sr_full(side.virtual_size, await attached.run(folder.room)) from error
            raise

    async def _quiet(self, attached: Attached, key: str, side: Sidecar) -> None:
        """Nobody merges images of the disk; the caller holds the SR's guard."""
        top = first(key, side)
        if not top:
            return
        there: bool = await attached.run(attached.folder.image(top).exists)
        if there:
            tree = await attached.run(attached.folder.tree)
            await attached.quiet(tree.chain_of(key))


def _whole_sectors(size: int) -> int:
    if size <= 0:
        raise backend_failure(Failure.VDI_SIZE, f"a disk of {size} bytes makes no sense")
    if size > qcow2.MAX_SIZE:
        raise backend_failure(Failure.VDI_SIZE, f"a disk has at most {qcow2.MAX_SIZE} bytes, {size} were asked for")
    return -(-size // SECTOR) * SECTOR


def _derived(source: Volume, new: NewVolume, origin: str, snapshot: bool = False) -> Sidecar:
    keys = {name: value for name, value in (new.keys or source.keys).items() if name not in SNAPSHOT_KEYS}
    if snapshot:
        now = datetime.now(UTC).strftime("%Y%m%dT%H:%M:%SZ")
        keys |= dict(zip(SNAPSHOT_KEYS, ("true", source.key, now), strict=True))
    return Sidecar(
        uuid=new.uuid,
        name=new.name or source.name,
        description=new.description or source.description,
        keys=keys,
        read_only=snapshot,
        virtual_size=source.virtual_size,
        origin=origin,
    )


# What follows blocks and runs in worker threads.


def _existing(folder: Folder, key: str, origin: str) -> Volume | None:
    """The disk that an earlier run of the same request made. Raises SR_BACKEND_FAILURE_43 if it is another one, and
    _47 when the folder is not this SR any more: nothing is made below a medium's empty mount point.
    """
    folder.check()
    side = folder.read_sidecar(key)
    data = folder.raw(key) if side.raw else folder.image(side.image or key)
    if side.hidden or not data.exists():
        return None
    if side.origin != origin:
        raise backend_failure(Failure.VDI_EXISTS, f"there is a disk {key} already")
    return folder.volume(key)


def _free_name(folder: Folder, key: str) -> str:
    """For a new disk's image: the disk's own, unless an earlier disk of that name left an image that others need."""
    return str(uuid.uuid4()) if folder.image(key).exists() else key


def _finish(folder: Folder, key: str, image: str, side: Sidecar) -> Volume:
    if image != key:
        folder.write_sidecar(image, Sidecar(uuid=image, hidden=True, read_only=True, virtual_size=side.virtual_size))
    folder.write_sidecar(key, side)
    folder.publish(image)
    return folder.volume(key)


def _make_raw(folder: Folder, side: Sidecar) -> Volume:
    """All or nothing: a sidecar without data is no disk, and data without a sidecar is garbage."""
    folder.write_sidecar(side.uuid, side)
    draft = folder.draft(RAW + side.uuid)
    try:
        with draft.open("wb") as file:
            file.truncate(side.virtual_size)
            os.fsync(file.fileno())
        os.replace(draft, folder.raw(side.uuid))
    except OSError:
        draft.unlink(missing_ok=True)
        folder.sidecar(side.uuid).unlink(missing_ok=True)
        raise
    sync(folder.path)
    return folder.volume(side.uuid)


def _resize_raw(folder: Folder, key: str, size: int) -> Volume:
    """The data first: a disk that ends before its file does no harm."""
    os.truncate(folder.raw(key), size)
    side = folder.read_sidecar(key)
    folder.write_sidecar(key, msgspec.structs.replace(side, virtual_size=size))
    return folder.volume(key)


def _undo(folder: Folder, key: str, image: str) -> None:
    """For a disk that was not there before. It may be finished already when its maker is cancelled."""
    folder.draft(image).unlink(missing_ok=True)
    folder.image(image).unlink(missing_ok=True)
    folder.forget(key)
    if image != key:
        folder.forget(image)


def _destroy(folder: Folder, key: str) -> None:
    folder.disk(key)
    tracking.forget(folder, key)
    folder.forget(key)
    folder.collect_garbage()


def _similar(folder: Folder, key: str) -> list[Volume]:
    """Disks that share images with one, by how far theirs are away; then by key."""
    tree = folder.tree()
    disk = tree.disks.get(key)
    if disk is None or not disk.image:
        folder.disk(key)
        return []
    near = {name: steps for steps, name in enumerate(tree.nearest(disk.image))}
    related = [(near[other.image], other.key) for other in tree.disks.values() if other.image in near]
    return [folder.volume(other) for _, other in sorted(related) if other != key]
