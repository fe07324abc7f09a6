"""What an SR type has to bring: the interface of its plug-in, in the shape of SMAPIv3.

Three groups of methods, as SMAPIv3 has them: `SR` on the repository, `Volume` on the disks in it, `Datapath` on making
a disk's data reachable. What a plug-in need not have is in `plugins.skeleton`, where it raises `Unimplemented`; its
driver information says by its features what it has. All are idempotent where the result can be the same: attach,
activate, deactivate, detach and SR.detach twice are the same as once, because after a crash the last step is repeated.

Errors are `ApiError`s with catalogue codes (see `plugins.errors`), and `ActivatedOnAnotherHost`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, NewType, Protocol

from shared.bus.contract import Record
from shared.contracts.storage import DriverInfo, Health
from shared.errors import ApiError

Handle = NewType("Handle", str)
"""An attached SR on one host, as the plug-in named it: opaque to everybody else."""

Report = Callable[[float], Awaitable[None]]
"""Told how far a long operation is, 0 to 1."""


class Volume(Record, frozen=True):
    """One disk. `key`: its name in the SR (the API's `location`). `uri`: where its data is, best first. Sizes in bytes.

    `keys`: what the toolstack keeps with it: `vdi-type`, `_sm_config_<key>`, `is_a_snapshot` ("true"), `snapshot_of`
    (key or uuid), `snapshot_time`, `content_id`, `metadata_of_pool`. `managed`: false for a hidden node that has a row.
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
    sharable: bool = False
    managed: bool = True
    cbt_enabled: bool = False


class NewVolume(Record, frozen=True):
    """What a new disk is called. `uuid` is chosen by the caller: creating it again finds the first one. A plug-in that
    chooses uuids itself says so by what it returns.
    """

    uuid: str
    name: str = ""
    description: str = ""
    keys: dict[str, str] = {}
    sharable: bool = False
    read_only: bool = False
    params: dict[str, str] = {}
    """Of snapshots and clones: the API's `driver_params`."""


class SrStat(Record, frozen=True):
    """Bytes."""

    uuid: str
    free_space: int
    total_space: int
    name: str = ""
    description: str = ""
    clustered: bool = False
    health: Health = "healthy"
    virtual_allocation: int | None = None
    """None: the sum of the disks' sizes."""


class Probed(Record, frozen=True):
    """An SR found on the medium, or, with an empty `uuid`, room for a new one.

    `complete`: the configuration is all that `create` or `attach` needs. Sizes in bytes, 0 if unknown.
    """

    configuration: dict[str, str]
    uuid: str
    complete: bool = True
    name: str = ""
    description: str = ""
    total_space: int = 0
    free_space: int = 0
    clustered: bool = False
    health: Health = "healthy"
    extra_info: dict[str, str] = {}
    raw: str = ""
    """The whole answer of a driver whose answers are text."""


class Range(NamedTuple):
    """Bytes of a disk."""

    offset: int
    length: int


class Changed(Record, frozen=True):
    """`bitmap`: one bit a block of `granularity` bytes, the most significant of the first byte first."""

    granularity: int
    bitmap: bytes


class Implementation(Record, frozen=True):
    """How the hypervisor reaches an attached disk; as `shared.contracts.storage.Backend`."""

    kind: str
    path: str
    format: str


class Domain(Record, frozen=True):
    """For whom a disk is attached: a datapath on a host. `writable`: whether somebody there is going to write."""

    host: str
    dp: str
    writable: bool = True


class Held(Record, frozen=True):
    """A disk that a host keeps activated, as the SR itself remembers it."""

    key: str
    uri: str
    dp: str
    writable: bool


class Unimplemented(Exception):
    """The plug-in lacks that method; the text names it. Callers may have another way."""


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

    async def probe_on(self, host: str, configuration: dict[str, str], sm_config: dict[str, str]) -> list[Probed]:
        """`probe` for plug-ins that need to know on which host (uuid), and what SMAPIv3 has no room for."""
        ...

    async def create_on(
        self, host: str, uuid: str, configuration: dict[str, str], name: str, description: str, size: int
    ) -> dict[str, str]:
        """`create`, likewise. `size`: bytes that the SR should have, 0 for what there is."""
        ...

    async def attach(self, uuid: str, configuration: dict[str, str], host: str) -> Handle: ...

    async def detach(self, sr: Handle) -> None: ...

    async def destroy(self, sr: Handle) -> None:
        """Removes an empty SR and detaches it. Raises SR_NOT_EMPTY."""
        ...

    async def stat(self, sr: Handle) -> SrStat: ...

    async def last_stat(self, sr: Handle) -> SrStat:
        """What is known already, where looking costs more than that."""
        ...

    async def lost(self, sr: Handle) -> ApiError | None:
        """Why the SR's medium is not there any more under it and can be had again by attaching it once more; None while
        nothing is known to be wrong. Asked every few seconds: it looks at what the host knows, never at the medium.
        """
        ...

    async def ls(self, sr: Handle) -> list[Volume]:
        """The disks, without the hidden nodes that only carry the data of others (but see `Volume.managed`)."""
        ...

    async def set_name(self, sr: Handle, name: str, description: str) -> None: ...


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

    async def resize(self, sr: Handle, key: str, size: int) -> Volume:
        """Also while this host has it activated, for who says VDI_RESIZE_ONLINE."""
        ...

    async def stat(self, sr: Handle, key: str) -> Volume: ...

    async def update(self, sr: Handle, key: str) -> Volume:
        """`stat`, with a look at the medium where `stat` does without."""
        ...

    async def introduce(self, sr: Handle, uuid: str, key: str, keys: dict[str, str]) -> Volume:
        """A disk that is there and that nobody knows yet."""
        ...

    async def describe(self, sr: Handle, key: str, name: str | None, description: str | None) -> None:
        """None: as it is."""
        ...

    async def set(self, sr: Handle, key: str, keys: dict[str, str | None]) -> None:
        """Changes `Volume.keys`; None removes one."""
        ...

    async def revert(self, sr: Handle, snapshot: str, key: str) -> Volume:
        """The disk gets its snapshot's content, and keeps its own key and uuid."""
        ...

    async def compose(self, sr: Handle, child: str, parent: str) -> None:
        """The child's blocks lie over the parent's from now on."""
        ...

    async def similar_content(self, sr: Handle, key: str) -> list[Volume]:
        """Nearest first."""
        ...

    async def compare(self, sr: Handle, key: str, base: str) -> list[Range]:
        """Where two disks may differ, in order; found by what they share, not by reading them."""
        ...

    async def enable_cbt(self, sr: Handle, key: str) -> None: ...

    async def disable_cbt(self, sr: Handle, key: str) -> None: ...

    async def data_destroy(self, sr: Handle, key: str) -> None:
        """A snapshot's data goes, what it knows of changed blocks stays."""
        ...

    async def changed_blocks(self, sr: Handle, key: str, later: str) -> Changed: ...

    async def generate_config(self, sr: Handle, key: str) -> str:
        """What attaches the disk on a host that has no database."""
        ...

    async def set_persistent(self, sr: Handle, key: str, persistent: bool) -> None:
        """False: the disk is from now on to forget at each run's begin what it was told since."""
        ...

    async def epoch(self, sr: Handle, key: str, vm: str, begin: bool, persistent: bool) -> None:
        """A run of a VM begins or has ended."""
        ...


class Datapath(Protocol):
    async def attach(self, uri: str, domain: Domain) -> Implementation:
        """Checks that the disk can be used at all. Nothing is exclusive yet."""
        ...

    async def located(self, uri: str, domain: Domain, attached: Implementation) -> Implementation:
        """What `attach` has answered, as it is to be opened now that the disk is activated: nobody could be kept from
        rearranging what is only attached. Asked again, by who has the disk activated, it may be another one.
        """
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

    @property
    def branches_in_use(self) -> bool:
        """Whether a disk that a datapath of this host has activated for writing can be snapshotted and cloned."""
        ...

    def query(self) -> DriverInfo: ...

    async def close(self) -> None:
        """Ends the plug-in's threads; what is attached stays attached."""
        ...
