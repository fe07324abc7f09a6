"""What an SR type has to bring: the interface of its plug-in, in the shape of SMAPIv3.

Three groups of methods, as SMAPIv3 has three folders of scripts: `SR` on the repository, `Volume` on the disks in it,
`Datapath` on making a disk's data reachable. All are idempotent where the result can be the same: attach, activate,
deactivate, detach and SR.detach twice are the same as once, because after a crash the last step is repeated.

Errors are `ApiError`s with catalogue codes (see `plugins.errors`), and `ActivatedOnAnotherHost`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NewType, Protocol

from shared.bus.contract import Record
from shared.contracts.storage import DriverInfo

Handle = NewType("Handle", str)
"""An attached SR on one host, as the plug-in named it: opaque to everybody else."""

Report = Callable[[float], Awaitable[None]]
"""Told how far a long operation is, 0 to 1."""


class Volume(Record, frozen=True):
    """One disk. `key`: its name in the SR (the API's `location`). `uri`: where its data is, best first. Sizes in bytes.

    `keys`: what the toolstack keeps with it: `vdi-type`, `_sm_config_<key>`.
    """

    key: str
    uuid: str
    name: str
    description: str
    read_write: bool
    virtual_size: int
    physical_utilisation: int
    uri: list[str]
    keys: dict[str, str] = {}


class NewVolume(Record, frozen=True):
    """What a new disk is called. `uuid` is chosen by the caller: creating it again finds the first one."""

    uuid: str
    name: str = ""
    description: str = ""
    keys: dict[str, str] = {}


class SrStat(Record, frozen=True):
    """Bytes."""

    uuid: str
    free_space: int
    total_space: int


class Probed(Record, frozen=True):
    """An SR found on the medium, or, with an empty `uuid`, room for a new one."""

    configuration: dict[str, str]
    uuid: str


class Implementation(Record, frozen=True):
    """How the hypervisor reaches an attached disk; as `shared.contracts.storage.Backend`."""

    kind: str
    path: str
    format: str


class Domain(Record, frozen=True):
    """For whom a disk is attached: a datapath on a host."""

    host: str
    dp: str


class Held(Record, frozen=True):
    """A disk that a host keeps activated, as the SR itself remembers it."""

    key: str
    uri: str
    dp: str
    writable: bool


class ActivatedOnAnotherHost(Exception):
    """The disk cannot be activated (or changed) because of what another host does with it."""

    def __init__(self, host: str, dp: str) -> None:
        self.host, self.dp = host, dp
        super().__init__(f"activated on host {host} by {dp}")


class SR(Protocol):
    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        """Looks what is there without changing it."""
        ...

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        """Prepares the medium; returns the configuration to attach with. Repeating it with the same uuid is fine."""
        ...

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle: ...

    async def detach(self, sr: Handle) -> None: ...

    async def destroy(self, sr: Handle) -> None:
        """Removes an empty SR and detaches it. Raises SR_NOT_EMPTY."""
        ...

    async def stat(self, sr: Handle) -> SrStat: ...

    async def ls(self, sr: Handle) -> list[Volume]:
        """The disks, without the hidden nodes that only carry the data of others."""
        ...


class VolumeMethods(Protocol):
    async def create(self, sr: Handle, new: NewVolume, size: int) -> Volume: ...

    async def clone(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        """A writable disk with the same content. Empty `new.name`, `new.description`, `new.keys`: the source's."""
        ...

    async def snapshot(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        """The same, read-only."""
        ...

    async def copy(self, sr: Handle, key: str, new: NewVolume, report: Report) -> Volume:
        """The same, writable, sharing no data with the source. Cancelled: nothing is left."""
        ...

    async def destroy(self, sr: Handle, key: str) -> None: ...

    async def resize(self, sr: Handle, key: str, size: int) -> Volume: ...

    async def stat(self, sr: Handle, key: str) -> Volume: ...


class Datapath(Protocol):
    async def attach(self, uri: str, domain: Domain) -> Implementation:
        """Checks that the disk can be used at all. Nothing is exclusive yet."""
        ...

    async def activate(self, uri: str, domain: Domain) -> None:
        """Allows writing. In the whole pool nobody else may have it activated. Raises `ActivatedOnAnotherHost`."""
        ...

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        """Allows reading, beside other readers. Raises `ActivatedOnAnotherHost`."""
        ...

    async def deactivate(self, uri: str, domain: Domain) -> None:
        """Also when the disk has vanished."""
        ...

    async def detach(self, uri: str, domain: Domain) -> None:
        """Also when the disk has vanished."""
        ...

    async def held(self, sr: Handle) -> list[Held]:
        """What this host has activated in the SR, as far as the SR knows: to find what the host itself forgot."""
        ...

    async def fence(self, sr: Handle, host: str) -> int:
        """Forgets every activation of a host. Only for a host that is certainly not running; returns how many."""
        ...


class Plugin(Protocol):
    """One SR type."""

    @property
    def sr(self) -> SR: ...

    @property
    def volume(self) -> VolumeMethods: ...

    @property
    def datapath(self) -> Datapath: ...

    @property
    def traceless(self) -> bool:
        """True: its datapaths leave nothing behind when the process or the machine ends, so there is nothing to repair.

        Their state is then recorded once, afterwards, and only has to outlive the process.
        """
        ...

    def query(self) -> DriverInfo: ...

    async def close(self) -> None:
        """Ends the plug-in's threads; what is attached stays attached."""
        ...
