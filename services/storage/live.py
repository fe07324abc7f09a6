"""Images that a hypervisor has open, as plug-ins change them: with its help, while the guest runs.

A plug-in that finds by its own records that a datapath of this host has a disk activated asks here. Datapaths of VMs
are the VM service's. Those of this service's own programs (`nbd/`, `copy/`, `task/`, `motion/`) cannot be changed under
them: `chain` says nothing of them, and the plug-in waits until they are closed.
"""

from __future__ import annotations

from typing import Protocol

from shared.bus.interface import Bus
from shared.contracts import vm_disks
from shared.contracts.storage import Backend
from shared.contracts.vm_disks import Chain


class Live(Protocol):
    """`dp`: a datapath of this host. Methods raise `ApiError`: DEVICE_NOT_ATTACHED when it has nothing open."""

    async def chain(self, host: str, dp: str) -> Chain: ...

    async def snapshot(self, host: str, dp: str, overlay: str) -> None: ...

    async def commit(self, host: str, dp: str, top: str, base: str, backing: str = "") -> None: ...

    async def resize(self, host: str, dp: str, size: int) -> None: ...

    async def pause(self, host: str, dp: str) -> None: ...

    async def resume(self, host: str, dp: str, backend: Backend | None = None) -> None: ...


class LiveOnBus:
    """Through the VM service of the host (uuid)."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def chain(self, host: str, dp: str) -> Chain:
        return await self._bus.call(vm_disks.DISK_CHAIN, vm_disks.DiskId(dp=dp), host=host)

    async def snapshot(self, host: str, dp: str, overlay: str) -> None:
        await self._bus.call(vm_disks.DISK_SNAPSHOT, vm_disks.DiskSnapshot(dp=dp, overlay=overlay), host=host)

    async def commit(self, host: str, dp: str, top: str, base: str, backing: str = "") -> None:
        request = vm_disks.DiskCommit(dp=dp, top=top, base=base, backing=backing)
        await self._bus.call(vm_disks.DISK_COMMIT, request, host=host)

    async def resize(self, host: str, dp: str, size: int) -> None:
        await self._bus.call(vm_disks.DISK_RESIZE, vm_disks.DiskResize(dp=dp, virtual_size=size), host=host)

    async def pause(self, host: str, dp: str) -> None:
        await self._bus.call(vm_disks.DISK_PAUSE, vm_disks.DiskId(dp=dp), host=host)

    async def resume(self, host: str, dp: str, backend: Backend | None = None) -> None:
        await self._bus.call(vm_disks.DISK_RESUME, vm_disks.DiskResume(dp=dp, backend=backend), host=host)
