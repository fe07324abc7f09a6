"""`services.vm.disks.Disks` by QMP: chains, snapshots, commits, sizes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from services.vm.disks import Progress, Slot
from services.vm.qemu.disks import graph, jobs, nodes
from services.vm.qemu.disks.access import Access, look, sweep
from services.vm.qemu.guest import Guest
from shared.contracts.storage import Backend as DiskBackend
from shared.contracts.vm_disks import Chain, DiskCommit
from shared.errors import ApiError


class Images(Access):
    async def chain(self, slot: Slot) -> Chain:
        guest = self._guest(slot.vm)
        if guest is None:
            return Chain()
        seen = await look(guest)
        top = seen.device_node(slot.device)
        if top is None:
            return Chain()
        return Chain(images=[image.path for image in seen.images(slot.device)], virtual_size=top.size)

    async def snapshot(self, slot: Slot, overlay: str) -> None:
        async with self._alone(slot) as guest:
            await sweep(guest, slot.device)
            images = await self._images(guest, slot)
            if graph.find(images[:1], overlay) is not None:
                return
            top = images[0]
            name = nodes.image_node(slot.device)
            image = DiskBackend(dp="", kind="file", path=overlay, format="qcow2", writable=top.writable)
            described = nodes.image(image, name, writable=top.writable)
            await guest.execute("blockdev-add", **described, backing=None)
            try:
                await guest.execute("blockdev-snapshot", node=top.node, overlay=name)
            except ApiError:
                await sweep(guest, slot.device)
                raise

    async def commit(self, slot: Slot, wanted: DiskCommit, progress: Progress) -> None:
        guest = self._require(slot)
        job = jobs.name_of("commit", slot.device, wanted.top, wanted.base)
        if await jobs.find(guest, job) is None:
            async with self._alone(slot):
                if not await self._start_commit(guest, slot, wanted, job):
                    return
        seen = await jobs.finish(guest, job, progress)  # or by somebody else who asked for the same
        if not seen and graph.find(await self._images(guest, slot), wanted.top) is not None:
            raise ApiError("INTERNAL_ERROR", f"the commit of {wanted.top} was cancelled")
        await sweep(guest, slot.device)

    async def resize(self, slot: Slot, virtual_size: int) -> None:
        async with self._alone(slot) as guest:
            images = await self._images(guest, slot)
            if images[0].size != virtual_size:
                await guest.execute("block_resize", **{"node-name": nodes.node(slot.device), "size": virtual_size})

    async def _start_commit(self, guest: Guest, slot: Slot, wanted: DiskCommit, job: str) -> bool:
        """False: there is nothing left to do."""
        await sweep(guest, slot.device)
        images = await self._images(guest, slot)
        top, base = graph.find(images, wanted.top), graph.find(images, wanted.base)
        if top is None and base is not None:
            return False
        if top is None or base is None or images.index(top) >= images.index(base):
            raise ApiError("INTERNAL_ERROR", f"{wanted.top} over {wanted.base}: not in {[one.path for one in images]}")
        await asyncio.to_thread(_check_names, guest.pid, [image.path for image in images])
        options: dict[str, object] = {"top-node": top.node, "base-node": base.node}
        if top is not images[0]:  # otherwise nobody is above to be told
            options["backing-file"] = wanted.backing or wanted.base
        async with jobs.ended_if_cancelled(guest, job):
            await guest.execute(
                "block-commit", **{"job-id": job, "device": nodes.node(slot.device), "auto-dismiss": False, **options}
            )
        return True


def _check_names(pid: int, paths: Iterable[str]) -> None:
    """QEMU opens an image that it is to write to once more, by its name: that must still be the same file.

    Raises INTERNAL_ERROR for one that was renamed or replaced meanwhile. What is no file is not looked at.
    """
    opened = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = link.stat()
        except FileNotFoundError:
            continue  # closed at this moment
        opened.add((found.st_dev, found.st_ino))
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if not path.startswith("/"):
            continue
        try:
            found = os.stat(path)
        except OSError as error:
            raise ApiError("INTERNAL_ERROR", f"an image that is open has lost its name: {path}: {error}") from error
        identity = (found.st_dev, found.st_ino)
        if identity not in opened or identity in seen:
            raise ApiError("INTERNAL_ERROR", f"the name of an open image belongs to another file now: {path}")
        seen.add(identity)
