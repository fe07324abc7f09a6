"""`services.vm.disks.Disks` by QMP: a disk and its copy elsewhere, kept alike until one of them is let go of."""

from __future__ import annotations

import asyncio

from services.vm.disks import Slot
from services.vm.qemu.disks import jobs, nodes
from services.vm.qemu.disks.access import Access, look, not_attached, sweep
from services.vm.qemu.disks.jobs import Job
from services.vm.qemu.guest import Guest
from shared.contracts.vm_disks import DiskMirror, MirrorState
from shared.errors import ApiError

END_TIMEOUT = 100.0
"""Seconds for a mirror that is ready to change over."""


class Mirrors(Access):
    async def mirror(self, slot: Slot, wanted: DiskMirror) -> None:
        target = wanted.target
        name = jobs.name_of("mirror", slot.device, target.kind, target.path, str(wanted.shallow))
        guest = self._require(slot)
        if await jobs.find(guest, name) is not None:
            return
        async with self._alone(slot):
            await sweep(guest, slot.device)
            top = (await self._images(guest, slot))[0]
            copy = nodes.image_node(slot.device)
            await guest.execute("blockdev-add", **nodes.image(target, copy, writable=True))
            try:
                await guest.execute(
                    "blockdev-mirror",
                    **{
                        "job-id": name,
                        "device": nodes.node(slot.device),
                        "target": copy,
                        "replaces": top.node,
                        "sync": "top" if wanted.shallow else "full",
                        "copy-mode": "write-blocking",  # from the start: this QEMU cannot change it later
                        "auto-dismiss": False,
                    },
                )
            except ApiError:
                await sweep(guest, slot.device)
                raise

    async def mirror_state(self, slot: Slot) -> MirrorState:
        guest = self._require(slot)
        job = await self._mirror_of(guest, slot)
        if job is None:
            if (await look(guest)).device_node(slot.device) is None:
                raise not_attached(slot)
            return MirrorState(running=False)
        if job.status == "concluded":
            return MirrorState(running=False, failed=job.error or "it was ended")
        ready = job.status == "ready"
        return MirrorState(running=True, ready=ready, progress=1.0 if ready else job.progress)

    async def mirror_end(self, slot: Slot, *, pivot: bool, whole: bool = False) -> None:
        guest = self._require(slot)
        job = await self._mirror_of(guest, slot)
        if job is None:
            if pivot or whole:
                raise ApiError("INTERNAL_ERROR", f"there is no mirror of {nodes.node(slot.device)}")
            return
        if (pivot or whole) and job.status not in ("ready", "concluded"):
            raise ApiError("INTERNAL_ERROR", f"the mirror of {nodes.node(slot.device)} is {job.status}, not ready")
        if pivot:
            try:
                async with asyncio.timeout(END_TIMEOUT):
                    await jobs.finish(guest, job.name, _unheard)
            finally:
                await sweep(guest, slot.device)
        else:
            failed = await jobs.cancel(guest, job.name, consistent=True)
            await sweep(guest, slot.device)
            if whole and failed:
                raise ApiError("INTERNAL_ERROR", f"the mirror of {nodes.node(slot.device)} failed: {failed}")

    async def _mirror_of(self, guest: Guest, slot: Slot) -> Job | None:
        found = await jobs.of_device(guest, slot.device)
        return next((job for job in found if jobs.kind_of(job.name) == "mirror"), None)


async def _unheard(_: float) -> None:
    """Nobody asks how far a change-over is."""
