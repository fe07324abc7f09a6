"""What is asked about the images of a host's running VMs, by datapath: `shared.contracts.vm_disks`."""

from __future__ import annotations

import time

from services.vm.disks import Progress
from services.vm.host import VmHost
from shared.bus import context
from shared.bus.contract import Empty
from shared.bus.interface import Bus, BusError
from shared.contracts import task, vm_disks
from shared.contracts.vm import PowerState
from shared.contracts.vm_disks import (
    Chain,
    DiskCommit,
    DiskId,
    DiskMirror,
    DiskMirrorEnd,
    DiskResize,
    DiskResume,
    DiskSnapshot,
    MirrorState,
)
from shared.service import Service

PROGRESS_INTERVAL = 1.0
"""Seconds between reports."""


class DiskRequests:
    def __init__(self, host: VmHost, bus: Bus) -> None:
        self._host = host
        self._disks = host.backend.disks
        self._bus = bus

    async def serve(self, service: Service) -> None:
        await service.serve(vm_disks.DISK_CHAIN, self._chain, host=self._host.uuid)
        await service.serve(vm_disks.DISK_SNAPSHOT, self._snapshot, host=self._host.uuid)
        await service.serve(vm_disks.DISK_COMMIT, self._commit, host=self._host.uuid)
        await service.serve(vm_disks.DISK_RESIZE, self._resize, host=self._host.uuid)
        await service.serve(vm_disks.DISK_PAUSE, self._pause, host=self._host.uuid)
        await service.serve(vm_disks.DISK_RESUME, self._resume, host=self._host.uuid)
        await service.serve(vm_disks.DISK_MIRROR, self._mirror, host=self._host.uuid)
        await service.serve(vm_disks.DISK_MIRROR_STATE, self._mirror_state, host=self._host.uuid)
        await service.serve(vm_disks.DISK_MIRROR_END, self._mirror_end, host=self._host.uuid)

    async def _chain(self, request: DiskId) -> Chain:
        if self._host.fills(request.dp):
            return Chain()
        return await self._disks.chain(await self._host.slot(request.dp))

    async def _snapshot(self, request: DiskSnapshot) -> Empty:
        await self._disks.snapshot(await self._host.slot(request.dp), request.overlay)
        return Empty()

    async def _commit(self, request: DiskCommit) -> Empty:
        await self._disks.commit(await self._host.slot(request.dp), request, reporter(self._bus))
        return Empty()

    async def _resize(self, request: DiskResize) -> Empty:
        await self._disks.resize(await self._host.slot(request.dp), request.virtual_size)
        return Empty()

    async def _pause(self, request: DiskId) -> Empty:
        await self._disks.pause(await self._host.slot(request.dp))
        return Empty()

    async def _resume(self, request: DiskResume) -> Empty:
        slot = await self._host.slot(request.dp)
        running = self._host.power_state(slot.vm) is PowerState.RUNNING
        await self._disks.resume(slot, request.backend, running=running)
        return Empty()

    async def _mirror(self, request: DiskMirror) -> Empty:
        await self._disks.mirror(await self._host.slot(request.dp), request)
        return Empty()

    async def _mirror_state(self, request: DiskId) -> MirrorState:
        return await self._disks.mirror_state(await self._host.slot(request.dp))

    async def _mirror_end(self, request: DiskMirrorEnd) -> Empty:
        await self._disks.mirror_end(await self._host.slot(request.dp), pivot=request.pivot, whole=request.whole)
        return Empty()


def reporter(bus: Bus) -> Progress:
    """Tells the task of the current call how far it is, now and then."""
    ref = context.current.get().task
    last = 0.0

    async def report(progress: float) -> None:
        nonlocal last
        now = time.monotonic()
        if ref and now - last >= PROGRESS_INTERVAL:
            last = now
            try:
                await bus.publish(task.PROGRESS, task.Progress(task=ref, progress=progress), task=ref)
            except BusError:
                last = 0.0  # work does not fail for want of an audience

    return report
