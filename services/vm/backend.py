"""What a hypervisor must be able to do. `tests/vm/test_backends.py` says it again, as tests that each backend passes.

One backend object serves one host. A *domain* is one run of a VM, from its start to its end or reboot; its `domid` is
never used again on that host. A VM has at most one domain. Domains outlive the process that made them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from shared.contracts.network import VifBackend
from shared.contracts.storage import Backend as DiskBackend
from shared.contracts.vm import ConsoleInfo, HostCapabilities, PowerState, VbdSpec, VifSpec, VmSpec

if TYPE_CHECKING:
    from services.vm.disks import Disks


class Disk(msgspec.Struct, frozen=True):
    """`backend`: where the disk is; None for an empty drive."""

    spec: VbdSpec
    backend: DiskBackend | None = None


class Nic(msgspec.Struct, frozen=True):
    spec: VifSpec
    backend: VifBackend


class Domain(msgspec.Struct, frozen=True):
    """All that a backend needs to build one run of a VM."""

    vm: VmSpec
    domid: int
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()

    @property
    def memory(self) -> int:
        """Bytes it starts with."""
        return self.vm.memory_dynamic_max


class Built(msgspec.Struct, frozen=True):
    """What identifies a built domain later: its process and when that started, in clock ticks since boot; 0: none."""

    accel: str
    pid: int = 0
    started: int = 0


class StopReason(StrEnum):
    """How a domain came to its end without being asked by us.

    DIED: its process is gone. ENDED: its process was told to end, by somebody on the host. In the other cases the
    domain is still there, with its CPUs stopped for good.
    """

    SHUTDOWN = "shutdown"
    REBOOT = "reboot"
    CRASH = "crash"
    DIED = "died"
    ENDED = "ended"


class Stopped(NamedTuple):
    vm: str
    domid: int
    reason: StopReason


class Expected(NamedTuple):
    """A domain that should still be there, as it was when last seen."""

    domain: Domain
    built: Built
    power_state: PowerState


OnStopped = Callable[[Stopped], None]
"""Called once for each domain that stops by itself, never for one that is being destroyed."""


class DiskNews:
    """Who is told what happens to disks under running guests; nobody before these are set. All may come too often.

    `changed`: called with the VM (uuid) when its guest has let go of a device or opened a drive, asked or not.
    `stalled`: with the VM when the hypervisor has stopped it, since a disk had no room. `failed`: with VM and device
    when its guest was told that a disk has failed to read or write something.
    """

    def __init__(self) -> None:
        self.changed: Callable[[str], None] = lambda vm: None
        self.stalled: Callable[[str], None] = lambda vm: None
        self.failed: Callable[[str, str], None] = lambda vm, device: None


class Backend(Protocol):
    """`vm` is a VM's uuid. Methods raise `ApiError`. A method that is cancelled leaves what `destroy` can clean up."""

    name: str
    disk_news: DiskNews

    @property
    def disks(self) -> Disks: ...

    async def open(self, expected: Sequence[Expected]) -> dict[str, PowerState]:
        """Comes first, once. Finds the expected domains again, by VM; those left out are gone.

        What happened to domains while nobody looked is told by `OnStopped`, maybe before this returns. Every other
        domain that a former process of this host has left behind is destroyed.
        """
        ...

    async def close(self) -> None:
        """Lets go of all domains. They go on."""
        ...

    async def capabilities(self) -> HostCapabilities: ...

    def check(self, vm: VmSpec) -> None:
        """Raises what is wrong with a configuration, before anything is done for it."""
        ...

    async def create(self, domain: Domain) -> Built:
        """Builds a domain; its CPUs do not run yet. Raises FAILED_TO_START_EMULATOR, HOST_NOT_ENOUGH_FREE_MEMORY."""
        ...

    async def unpause(self, vm: str) -> None: ...

    async def pause(self, vm: str) -> None: ...

    async def request_shutdown(self, vm: str) -> None:
        """Presses the power button. Returns when that is acknowledged, else VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT."""
        ...

    async def destroy(self, domain: Domain) -> None:
        """Ends a domain however far it came; one that is not there is no error. When it returns, no process has its
        disks open."""
        ...

    def consoles(self, vm: VmSpec) -> list[ConsoleInfo]:
        """Which consoles a domain of this VM has."""
        ...

    async def console(self, vm: str, protocol: str) -> str:
        """Path of a Unix socket: vt100 replays up to the last 64 KiB of output to each client, rfb is a VNC server."""
        ...
