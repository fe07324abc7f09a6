"""Reaching the disks of living domains by QMP, one operation at a time for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from services.vm.disks import Slot
from services.vm.qemu.disks import jobs
from services.vm.qemu.disks.graph import Graph, Image
from services.vm.qemu.guest import Guest
from shared.contracts.storage import Backend as DiskBackend
from shared.errors import ApiError


class Access:
    """`guest`: the VM's living domain, None when there is none."""

    def __init__(self, guest: Callable[[str], Guest | None]) -> None:
        self._guest = guest
        self._locks: WeakKeyDictionary[Guest, dict[str, asyncio.Lock]] = WeakKeyDictionary()

    @asynccontextmanager
    async def _alone(self, slot: Slot) -> AsyncIterator[Guest]:
        """One after the other for each disk, and not while a job works on it."""
        guest = self._require(slot)
        async with self._locks.setdefault(guest, {}).setdefault(slot.device, asyncio.Lock()):
            for job in await jobs.of_device(guest, slot.device):
                raise ApiError("OTHER_OPERATION_IN_PROGRESS", "VBD", slot.vbd, jobs.kind_of(job.name), job.name)
            yield guest

    def _require(self, slot: Slot) -> Guest:
        guest = self._guest(slot.vm)
        if guest is None:
            raise not_attached(slot)
        return guest

    async def _images(self, guest: Guest, slot: Slot) -> list[Image]:
        """At least one."""
        images = (await look(guest)).images(slot.device)
        if not images:
            raise not_attached(slot)
        return images


def not_attached(slot: Slot) -> ApiError:
    return ApiError("DEVICE_NOT_ATTACHED", slot.vbd)


async def look(guest: Guest) -> Graph:
    return Graph(
        await guest.execute("query-named-block-nodes", flat=True), await guest.execute("x-debug-query-block-graph")
    )


async def sweep(guest: Guest, device: str) -> None:
    """Closes what was opened for a device and is in use no more. An image that was given a new one above it is only
    free once that is closed.
    """
    while unused := (await look(guest)).unused(device):
        for name in unused:
            await guest.execute("blockdev-del", **{"node-name": name})


def backend_of(slot: Slot, image: Image) -> DiskBackend:
    return DiskBackend(
        dp=f"vbd/{slot.vm}/{slot.device}",
        kind=image.kind,
        path=image.path,
        format=image.format,
        writable=image.writable,
    )
