"""Images that a hypervisor has open for its domains, and changing them while guests run.

`tests/vm/test_disks.py` says it again, as tests that each backend passes. What a domain has open is asked of the
hypervisor each time, never remembered: it outlives this process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from services.vm.backend import Disk
from shared.contracts.storage import Backend as DiskBackend
from shared.contracts.vm_disks import Chain, DiskCommit, DiskMirror, MirrorState

Progress = Callable[[float], Awaitable[None]]
"""Told now and then how far something is: 0 to 1."""


class Slot(NamedTuple):
    """One disk of a domain. `vm`: uuid. `device`: position, decimal text. `vbd`: reference, for errors."""

    vm: str
    device: str
    vbd: str


class Disks(Protocol):
    """Methods raise DEVICE_NOT_ATTACHED when the domain has nothing open there, OTHER_OPERATION_IN_PROGRESS while the
    disk is committed or mirrored, INTERNAL_ERROR with the hypervisor's words. Each may be asked again.
    """

    async def plugged(self, vm: str) -> set[str]:
        """Devices of a domain that came with it or were plugged; also empty drives. Raises when nobody can tell."""
        ...

    async def plug(self, slot: Slot, disk: Disk) -> None:
        """Gives a running domain a disk, or a drive of it a medium. One that has it already is left alone.

        Raises DEVICE_ATTACH_TIMEOUT, OPERATION_NOT_ALLOWED when there is no room for it.
        """
        ...

    async def unplug(self, slot: Slot, *, force: bool) -> None:
        """Takes a disk from a domain, or a medium from a drive, which stays; closes the images. One that is not there
        is no error. `force`: also from a guest that does not let go.

        Raises DEVICE_DETACH_TIMEOUT, DEVICE_DETACH_REJECTED: then the guest still has it, and may let go later.
        """
        ...

    async def ejected(self, slot: Slot) -> bool:
        """Whether the guest has opened the drive, in which the medium still is."""
        ...

    async def stalled(self, vm: str) -> str:
        """The device (one of them) for whose lack of room the hypervisor has stopped the VM; "" if it has not."""
        ...

    async def chain(self, slot: Slot) -> Chain:
        """Never raises for a disk that is not there or paused: it has no image open."""
        ...

    async def snapshot(self, slot: Slot, overlay: str) -> None: ...

    async def commit(self, slot: Slot, wanted: DiskCommit, progress: Progress) -> None:
        """Until it is done. When cancelled, the images stay a chain in which nothing is lost."""
        ...

    async def resize(self, slot: Slot, virtual_size: int) -> None: ...

    async def pause(self, slot: Slot) -> None:
        """Ends what is in flight and closes the images. The guest only sees that it takes long."""
        ...

    async def resume(self, slot: Slot, backend: DiskBackend | None, *, running: bool) -> None:
        """`backend`: None opens what was open. `running`: the guest's CPUs run afterwards, unless another of its disks
        is paused.
        """
        ...

    async def mirror(self, slot: Slot, wanted: DiskMirror) -> None: ...

    async def mirror_state(self, slot: Slot) -> MirrorState: ...

    async def mirror_end(self, slot: Slot, *, pivot: bool, whole: bool = False) -> None:
        """`whole`: INTERNAL_ERROR unless the target is left with all that the disk has."""
        ...
