"""Disks of simulated domains: their guests read and write nothing.

A disk without content (format `none`) has the images that it was told of. The images of a real one are changed by
qemu-img as a hypervisor would change them. What is open is kept in a file, since domains outlive the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from services.vm.backend import Disk, Domain
from services.vm.disks import Progress, Slot
from services.vm.simulator import qemu_img
from services.vm.simulator.qemu_img import Image
from shared.contracts.storage import Backend as DiskBackend
from shared.contracts.vm_disks import Chain, DiskCommit, DiskMirror, MirrorState
from shared.errors import ApiError

KEEPS = "sim:keeps-devices"
"""Key of a VM's other_config: "true" when its guest does not let go of devices."""
NO_CONTENT = "none"


class SimulatedDisk(msgspec.Struct):
    """`top`: the image that is written to. `below`: those under it, where they have no content. `size`: bytes, 0 before
    it was told.
    """

    top: DiskBackend
    below: list[str] = []
    size: int = 0
    paused: bool = False

    @property
    def is_real(self) -> bool:
        return self.top.format != NO_CONTENT


class SimulatedDevices:
    """Of one domain. `here`: devices. `disks`: what is in them. `path`: where changes are kept."""

    def __init__(self, domain: Domain, path: Path) -> None:
        self._path = path
        self.keeps = domain.vm.other_config.get(KEEPS) == "true"
        self.here = {disk.spec.device for disk in domain.disks}
        self.disks: dict[str, SimulatedDisk] = {}
        self.mirrors: dict[str, _Mirror] = {}
        self.busy: set[str] = set()
        for disk in domain.disks:
            self.put(disk)

    def put(self, disk: Disk) -> None:
        self.here.add(disk.spec.device)
        if disk.backend is not None:
            self.disks[disk.spec.device] = SimulatedDisk(disk.backend)

    async def drop(self, device: str) -> None:
        self.here.discard(device)
        self.disks.pop(device, None)
        await self.end_mirror(device)

    async def end_mirror(self, device: str) -> None:
        mirror = self.mirrors.pop(device, None)
        if mirror is not None:
            mirror.copying.cancel()
            await asyncio.wait({mirror.copying})

    def remember(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(self.disks))
        fresh.rename(self._path)

    def recall(self) -> None:
        """What a former process of the service changed."""
        if self._path.exists():
            known = msgspec.json.decode(self._path.read_bytes(), type=dict[str, SimulatedDisk])
            self.disks |= {device: disk for device, disk in known.items() if device in self.here}

    async def close(self) -> None:
        for device in list(self.mirrors):
            await self.end_mirror(device)


class _Mirror:
    """`copying` ends when the target is ready."""

    def __init__(self, wanted: DiskMirror, copying: asyncio.Task[None]) -> None:
        self.wanted = wanted
        self.copying = copying

    @property
    def failed(self) -> str:
        if not self.copying.done():
            return ""
        if self.copying.cancelled():
            return "it was ended"
        error = self.copying.exception()
        return "" if error is None else str(error)


class SimulatedDisks:
    """`devices`: of a VM's living domain; None when there is none."""

    def __init__(self, devices: Callable[[str], SimulatedDevices | None]) -> None:
        self._devices = devices

    async def plugged(self, vm: str) -> set[str]:
        devices = self._devices(vm)
        if devices is None:
            raise ApiError("INTERNAL_ERROR", f"VM {vm} has no domain here")
        return set(devices.here)

    async def ejected(self, slot: Slot) -> bool:
        return False

    async def stalled(self, vm: str) -> str:
        return ""

    async def plug(self, slot: Slot, disk: Disk) -> None:
        devices = self._devices(slot.vm)
        if devices is None:
            raise ApiError("DEVICE_NOT_ATTACHED", slot.vbd)
        if slot.device not in devices.disks:
            devices.put(disk)

    async def unplug(self, slot: Slot, *, force: bool) -> None:
        devices = self._devices(slot.vm)
        if devices is None or slot.device not in devices.here:
            return
        if devices.keeps and not force:
            raise ApiError("DEVICE_DETACH_TIMEOUT", "VBD", slot.vbd)
        if not force:
            self._refuse_while_busy(slot, devices)
        await devices.drop(slot.device)

    async def chain(self, slot: Slot) -> Chain:
        devices = self._devices(slot.vm)
        disk = None if devices is None else devices.disks.get(slot.device)
        if disk is None:
            return Chain()
        images = await _images(disk)
        return Chain(images=[] if disk.paused else [image.path for image in images], virtual_size=images[0].size)

    async def snapshot(self, slot: Slot, overlay: str) -> None:
        devices, disk = self._open(slot)
        if disk.top.path != overlay:
            disk.below = [disk.top.path, *disk.below]
            form = "qcow2" if disk.is_real else NO_CONTENT
            disk.top = msgspec.structs.replace(disk.top, kind="file", path=overlay, format=form)
            devices.remember()

    async def commit(self, slot: Slot, wanted: DiskCommit, progress: Progress) -> None:
        devices, disk = self._open(slot)
        images = await _images(disk)
        paths = [image.path for image in images]
        if wanted.top not in paths and wanted.base in paths:
            return
        if wanted.top not in paths or wanted.base not in paths[paths.index(wanted.top) + 1 :]:
            raise ApiError("INTERNAL_ERROR", f"{wanted.top} over {wanted.base}: not in {paths}")
        first, last = paths.index(wanted.top), paths.index(wanted.base)
        devices.busy.add(slot.device)
        try:
            if disk.is_real:
                await qemu_img.commit(images[first], images[last])
                if first:
                    await qemu_img.rebase(images[first - 1], images[last], wanted.backing or wanted.base)
        finally:
            devices.busy.discard(slot.device)
        left = images[:first] + images[last:]
        disk.top = msgspec.structs.replace(disk.top, path=left[0].path, format=left[0].format)
        disk.below = [image.path for image in left[1:]]
        devices.remember()
        await progress(1.0)

    async def resize(self, slot: Slot, virtual_size: int) -> None:
        devices, disk = self._open(slot)
        top = (await _images(disk))[0]
        if disk.is_real and top.size != virtual_size:
            await qemu_img.resize(top, virtual_size)
        disk.size = virtual_size
        devices.remember()

    async def pause(self, slot: Slot) -> None:
        devices, disk = self._require(slot)
        self._refuse_while_busy(slot, devices)
        disk.paused = True
        devices.remember()

    async def resume(self, slot: Slot, backend: DiskBackend | None, *, running: bool) -> None:
        devices, disk = self._require(slot)
        if disk.paused:
            if backend is not None and backend.path != disk.top.path:
                disk.top, disk.below = backend, []
            disk.paused = False
            devices.remember()

    async def mirror(self, slot: Slot, wanted: DiskMirror) -> None:
        devices, disk = self._require(slot)
        mirror = devices.mirrors.get(slot.device)
        if mirror is None or mirror.wanted != wanted:
            self._open(slot)
            copying = asyncio.create_task(_copy(disk, wanted.target), name=f"mirror of VBD {slot.vbd}")
            devices.mirrors[slot.device] = _Mirror(wanted, copying)

    async def mirror_state(self, slot: Slot) -> MirrorState:
        devices, _ = self._require(slot)
        mirror = devices.mirrors.get(slot.device)
        if mirror is None or mirror.failed:
            return MirrorState(running=False, failed="" if mirror is None else mirror.failed)
        ready = mirror.copying.done()
        return MirrorState(running=True, ready=ready, progress=1.0 if ready else 0.0)

    async def mirror_end(self, slot: Slot, *, pivot: bool, whole: bool = False) -> None:
        devices, disk = self._require(slot)
        mirror = devices.mirrors.get(slot.device)
        if (pivot or whole) and (mirror is None or mirror.failed or not mirror.copying.done()):
            raise ApiError("INTERNAL_ERROR", f"there is no mirror of {slot.device} that is ready")
        await devices.end_mirror(slot.device)
        if pivot and mirror is not None:
            disk.top, disk.below = mirror.wanted.target, []
            devices.remember()

    # ----

    def _require(self, slot: Slot) -> tuple[SimulatedDevices, SimulatedDisk]:
        devices = self._devices(slot.vm)
        disk = None if devices is None else devices.disks.get(slot.device)
        if devices is None or disk is None:
            raise ApiError("DEVICE_NOT_ATTACHED", slot.vbd)
        return devices, disk

    def _open(self, slot: Slot) -> tuple[SimulatedDevices, SimulatedDisk]:
        """Not paused, and nothing going on."""
        devices, disk = self._require(slot)
        self._refuse_while_busy(slot, devices)
        if disk.paused:
            raise ApiError("DEVICE_NOT_ATTACHED", slot.vbd)
        return devices, disk

    def _refuse_while_busy(self, slot: Slot, devices: SimulatedDevices) -> None:
        for what, whose in (("mirror", devices.mirrors), ("commit", devices.busy)):
            if slot.device in whose:
                raise ApiError("OTHER_OPERATION_IN_PROGRESS", "VBD", slot.vbd, what, f"{what}-{slot.device}")


async def _images(disk: SimulatedDisk) -> list[Image]:
    if disk.is_real:
        return await qemu_img.chain(disk.top)
    return [Image(path, NO_CONTENT, disk.size) for path in (disk.top.path, *disk.below)]


async def _copy(disk: SimulatedDisk, target: DiskBackend) -> None:
    if disk.is_real:
        await qemu_img.copy((await _images(disk))[0], target)
