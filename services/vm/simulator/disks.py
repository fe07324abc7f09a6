"""Disks of simulated domains.

A disk without content (format `none`) has the images that it was told of. A real one is not open: a simulated guest
reads and writes nothing, and whoever changes its images does that as if no VM ran.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services.vm.backend import Disk, Domain
from services.vm.disks import Progress, Slot
from shared.contracts.storage import Backend as DiskBackend
from shared.contracts.vm_disks import Chain, DiskCommit, DiskMirror, MirrorState
from shared.errors import ApiError

KEEPS = "sim:keeps-devices"
"""Key of a VM's other_config: "true" when its guest does not let go of devices."""


@dataclass(eq=False)
class SimulatedDisk:
    """`images`: the one that is written to first. `size`: bytes, 0 before it was told. `aside`: while it is paused."""

    images: list[str]
    size: int = 0
    aside: list[str] = field(default_factory=list)
    mirror: DiskMirror | None = None


def simulated(disks: tuple[Disk, ...]) -> dict[str, SimulatedDisk]:
    """By device, those that have no content."""
    return {
        disk.spec.device: SimulatedDisk([disk.backend.path])
        for disk in disks
        if disk.backend is not None and disk.backend.format == "none"
    }


@dataclass(eq=False)
class SimulatedDevices:
    """Of one domain. `here`: devices. `disks`: those without content, by device."""

    here: set[str]
    disks: dict[str, SimulatedDisk]
    keeps: bool

    @classmethod
    def of(cls, domain: Domain) -> SimulatedDevices:
        here = {disk.spec.device for disk in domain.disks}
        return cls(here, simulated(domain.disks), domain.vm.other_config.get(KEEPS) == "true")


class SimulatedDisks:
    """`devices`: of a VM's living domain; None when there is none."""

    def __init__(self, devices: Callable[[str], SimulatedDevices | None]) -> None:
        self._devices = devices

    async def plugged(self, vm: str) -> set[str]:
        devices = self._devices(vm)
        if devices is None:
            raise ApiError("INTERNAL_ERROR", f"VM {vm} has no domain here")
        return set(devices.here)

    async def plug(self, slot: Slot, disk: Disk) -> None:
        devices = self._devices(slot.vm)
        if devices is None:
            raise ApiError("DEVICE_NOT_ATTACHED", slot.vbd)
        if not (slot.device in devices.here and slot.device in devices.disks):
            devices.disks |= simulated((disk,))
        devices.here.add(slot.device)

    async def unplug(self, slot: Slot, *, force: bool) -> None:
        devices = self._devices(slot.vm)
        if devices is None or slot.device not in devices.here:
            return
        if devices.keeps and not force:
            raise ApiError("DEVICE_DETACH_TIMEOUT", "VBD", slot.vbd)
        if not force and slot.device in devices.disks:
            self._refuse_while_mirrored(slot, devices.disks[slot.device])
        devices.here.discard(slot.device)
        devices.disks.pop(slot.device, None)

    async def chain(self, slot: Slot) -> Chain:
        disk = self._disk(slot)
        return Chain() if disk is None else Chain(images=list(disk.images), virtual_size=disk.size)

    async def snapshot(self, slot: Slot, overlay: str) -> None:
        disk = self._open(slot)
        if disk.images[0] != overlay:
            disk.images.insert(0, overlay)

    async def commit(self, slot: Slot, wanted: DiskCommit, progress: Progress) -> None:
        disk = self._open(slot)
        images = disk.images
        if wanted.top not in images and wanted.base in images:
            return
        if wanted.top not in images or wanted.base not in images[images.index(wanted.top) + 1 :]:
            raise ApiError("INTERNAL_ERROR", f"{wanted.top} over {wanted.base}: not in {images}")
        del images[images.index(wanted.top) : images.index(wanted.base)]
        await progress(1.0)

    async def resize(self, slot: Slot, virtual_size: int) -> None:
        self._open(slot).size = virtual_size

    async def pause(self, slot: Slot) -> None:
        disk = self._require(slot)
        self._refuse_while_mirrored(slot, disk)
        if disk.images:
            disk.aside, disk.images = disk.images, []

    async def resume(self, slot: Slot, backend: DiskBackend | None, *, running: bool) -> None:
        disk = self._require(slot)
        if not disk.images:
            known = backend is None or disk.aside[:1] == [backend.path]
            disk.images, disk.aside = disk.aside if backend is None or known else [backend.path], []

    async def mirror(self, slot: Slot, wanted: DiskMirror) -> None:
        disk = self._require(slot)
        if disk.mirror != wanted:
            self._open(slot).mirror = wanted

    async def mirror_state(self, slot: Slot) -> MirrorState:
        mirrored = self._require(slot).mirror is not None
        return MirrorState(running=mirrored, ready=mirrored, progress=1.0 if mirrored else 0.0)

    async def mirror_end(self, slot: Slot, *, pivot: bool) -> None:
        disk = self._require(slot)
        wanted, disk.mirror = disk.mirror, None
        if pivot:
            if wanted is None:
                raise ApiError("INTERNAL_ERROR", f"there is no mirror of {slot.device}")
            disk.images = [wanted.target.path]

    def _disk(self, slot: Slot) -> SimulatedDisk | None:
        devices = self._devices(slot.vm)
        return None if devices is None else devices.disks.get(slot.device)

    def _require(self, slot: Slot) -> SimulatedDisk:
        disk = self._disk(slot)
        if disk is None:
            raise ApiError("DEVICE_NOT_ATTACHED", slot.vbd)
        return disk

    def _open(self, slot: Slot) -> SimulatedDisk:
        """With at least one image, and nothing going on."""
        disk = self._require(slot)
        self._refuse_while_mirrored(slot, disk)
        if not disk.images:
            raise ApiError("DEVICE_NOT_ATTACHED", slot.vbd)
        return disk

    def _refuse_while_mirrored(self, slot: Slot, disk: SimulatedDisk) -> None:
        if disk.mirror is not None:
            raise ApiError("OTHER_OPERATION_IN_PROGRESS", "VBD", slot.vbd, "mirror", f"mirror-{slot.device}")
