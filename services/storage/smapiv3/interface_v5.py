"""SMAPIv3, version 5.0, as data: the interfaces with their functions, and the types of what passes.

This is the only place where their names are written: `declaration` reads the signatures below, the adapter calls
scripts by them (`calls.call(SR.attach, configuration=...)`), and `bindings` makes the Python packages of them that
plug-ins import. Every function takes `dbg`, the context of the call, before the parameters declared here.

Variants are JSON arrays, `["Healthy", ""]`. Optional members may be left out. Sizes are bytes.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

Configuration = dict[str, str]


class _Record(msgspec.Struct, frozen=True):
    """A JSON object; members that are not declared are passed over."""


# -- plugin -----------------------------------------------------------------------------------------------------------


class QueryResult(_Record, frozen=True):
    """`plugin`: the SR type. `required_cluster_stack`: one of these has to run."""

    plugin: str
    name: str
    description: str
    vendor: str
    copyright: str
    version: str
    required_api_version: str
    features: list[str]
    configuration: Configuration
    required_cluster_stack: list[str]


class Plugin(Protocol):
    """What a plug-in says about itself. Volume plug-ins and datapath plug-ins both have it."""

    def query(self) -> QueryResult:
        """Says what the plug-in is and can. Asked before anything else."""
        ...

    def ls(self) -> list[str]:
        """The SRs that are attached."""
        ...

    def diagnostics(self) -> str:
        """Text for people who look for a fault; without secrets, as it ends up in bug reports."""
        ...


# -- volume -----------------------------------------------------------------------------------------------------------

HealthState = Literal["Healthy", "Recovering", "Unreachable", "Unavailable"]


class SrStat(_Record, frozen=True):
    """`sr`: the SR's handle. `datasources`: URIs of figures that change. `health`: the state and a text about it."""

    sr: str
    name: str
    description: str
    free_space: int
    total_space: int
    datasources: list[str]
    clustered: bool
    health: tuple[HealthState, str]
    uuid: str | None = None


class ProbeResult(_Record, frozen=True):
    """`complete`: SR.create or SR.attach needs no more. `sr`: the one that is there."""

    configuration: Configuration
    complete: bool
    extra_info: dict[str, str]
    sr: SrStat | None = None


class VolumeRecord(_Record, frozen=True):
    """`key`: its name in the SR. `uri`: where datapath plug-ins find its data, best first. `keys`: what the toolstack
    keeps with it, which is nothing to the plug-in.
    """

    key: str
    name: str
    description: str
    read_write: bool
    sharable: bool
    virtual_size: int
    physical_utilisation: int
    uri: list[str]
    keys: dict[str, str]
    uuid: str | None = None
    volume_type: Literal["Data", "CBT_Metadata", "Data_and_CBT_Metadata"] | None = None
    cbt_enabled: bool | None = None


class ChangedBlocks(_Record, frozen=True):
    """`bitmap`: base64, one bit for each block of `granularity` bytes."""

    granularity: int
    bitmap: str


class BlockList(_Record, frozen=True):
    """`ranges`: first block and number of blocks of `blocksize` bytes."""

    blocksize: int
    ranges: list[tuple[int, int]]


class SR(Protocol):
    """What is done with storage repositories."""

    def probe(self, configuration: Configuration) -> list[ProbeResult]:
        """Looks what SRs there are, or where one can be made; called again with what it returned, to find more."""
        ...

    def create(self, uuid: str, configuration: Configuration, name: str, description: str) -> Configuration:
        """Makes a new SR. Returns the configuration to attach it with."""
        ...

    def attach(self, configuration: Configuration) -> str:
        """Makes the SR's volumes reachable on this host. Returns the handle that all else is called with."""
        ...

    def detach(self, sr: str) -> None:
        """Undoes `attach`; volumes are not reachable any more. One that is not attached is no error."""
        ...

    def destroy(self, sr: str) -> None:
        """Removes an attached SR with everything in it."""
        ...

    def stat(self, sr: str) -> SrStat:
        """The SR's space and health; not its volumes."""
        ...

    def set_name(self, sr: str, new_name: str) -> None:
        """Gives the SR another name."""
        ...

    def set_description(self, sr: str, new_description: str) -> None:
        """Gives the SR another description."""
        ...

    def ls(self, sr: str) -> list[VolumeRecord]:
        """The volumes in the SR."""
        ...


class Volume(Protocol):
    """What is done with volumes, the disks in an SR. None of it opens them: see Datapath."""

    def create(self, sr: str, name: str, description: str, size: int, sharable: bool) -> VolumeRecord:
        """A new empty volume, at least as large as asked for."""
        ...

    def snapshot(self, sr: str, key: str) -> VolumeRecord:
        """A read-only volume with the same content, name and description; `keys` are not copied."""
        ...

    def clone(self, sr: str, key: str) -> VolumeRecord:
        """A writable volume with the same content, name and description; `keys` are not copied."""
        ...

    def copy(self, sr: str, key: str, dest_sr: str) -> VolumeRecord:
        """A writable volume with the same content in another SR, for storage that is faster at it than the host."""
        ...

    def destroy(self, sr: str, key: str) -> None:
        """Removes a volume."""
        ...

    def revert(self, sr: str, snapshot: str, key: str) -> None:
        """Gives the volume `key` the content of its snapshot."""
        ...

    def set_name(self, sr: str, key: str, new_name: str) -> None:
        """Gives a volume another name."""
        ...

    def set_description(self, sr: str, key: str, new_description: str) -> None:
        """Gives a volume another description."""
        ...

    def set(self, sr: str, key: str, k: str, v: str) -> None:
        """Keeps the value `v` under `k` with the volume, for the toolstack."""
        ...

    def unset(self, sr: str, key: str, k: str) -> None:
        """Removes what is kept under `k`."""
        ...

    def resize(self, sr: str, key: str, new_size: int) -> None:
        """Makes a volume at least that large."""
        ...

    def stat(self, sr: str, key: str) -> VolumeRecord:
        """One volume as it is now."""
        ...

    def compare(self, sr: str, key: str, key2: str) -> BlockList:
        """Where two volumes may differ."""
        ...

    def similar_content(self, sr: str, key: str) -> list[str]:
        """Keys of volumes with similar content, the most similar first."""
        ...

    def enable_cbt(self, sr: str, key: str) -> None:
        """Changed blocks are kept track of from now on."""
        ...

    def disable_cbt(self, sr: str, key: str) -> None:
        """Changed blocks are not kept track of any more."""
        ...

    def data_destroy(self, sr: str, key: str) -> None:
        """Removes a snapshot's data, and keeps what is known of changed blocks."""
        ...

    def list_changed_blocks(self, sr: str, key: str, key2: str, offset: int, length: int) -> ChangedBlocks:
        """Blocks that have changed from `key` to the later `key2`, from `offset` on; `length` -1: up to the end."""
        ...

    def compose(self, sr: str, key: str, key2: str) -> None:
        """Lays the blocks of `key` (child) over those of `key2` (parent)."""
        ...


# -- datapath ---------------------------------------------------------------------------------------------------------


class XenDiskParams(_Record, frozen=True):
    """`params`, `extra`: for the back end named `backend_type`, such as `vbd` or `qdisk`."""

    params: str
    extra: dict[str, str]
    backend_type: str


class PathParams(_Record, frozen=True):
    path: str


class UriParams(_Record, frozen=True):
    """`nbd:unix:<socket>:exportname=<name>`"""

    uri: str


class XenDisk(msgspec.Struct, frozen=True, array_like=True, tag="XenDisk"):
    """For a back end of Xen."""

    value: XenDiskParams


class BlockDevice(msgspec.Struct, frozen=True, array_like=True, tag="BlockDevice"):
    """A block device of this host."""

    value: PathParams


class File(msgspec.Struct, frozen=True, array_like=True, tag="File"):
    """A raw file."""

    value: PathParams


class Nbd(msgspec.Struct, frozen=True, array_like=True, tag="Nbd"):
    """An NBD server on a Unix socket."""

    value: UriParams


class Backend(_Record, frozen=True):
    """Several ways to the same data."""

    implementations: list[XenDisk | BlockDevice | File | Nbd]


class Datapath(Protocol):
    """How the data of a volume is reached. Everything may be repeated. `domain` says for whom; it has no other meaning.

    The order is open (optional), attach, activate; I/O; deactivate, detach, close (optional). `activate` may refuse
    what is activated on another host.
    """

    def open(self, uri: str, persistent: bool) -> None:
        """Before a VM starts: whether what it writes is kept when it ends. For who has the feature NONPERSISTENT."""
        ...

    def attach(self, uri: str, domain: str) -> Backend:
        """Prepares the data for use. Not exclusive: hosts have it attached at the same time while a VM migrates."""
        ...

    def activate(self, uri: str, domain: str) -> None:
        """Right before the first I/O; quick, as a migrating VM stands still meanwhile."""
        ...

    def activate_readonly(self, uri: str, domain: str) -> None:
        """The same for readers, of which there may be many. For who has the feature VDI_ACTIVATE_READONLY."""
        ...

    def import_activate(self, uri: str, domain: str) -> str:
        """The Unix socket that takes a connection whose server end it becomes. For who has VDI_MIRROR_IN."""
        ...

    def deactivate(self, uri: str, domain: str) -> None:
        """Right after the last I/O."""
        ...

    def detach(self, uri: str, domain: str) -> None:
        """Undoes `attach`. It does not fail: what cannot be cleaned up now is cleaned up later."""
        ...

    def close(self, uri: str) -> None:
        """After the VM has ended: forgets what was not to be kept."""
        ...


class CopyV1(msgspec.Struct, frozen=True, array_like=True, tag="CopyV1"):
    """A copy, by its name."""

    value: str


class MirrorV1(msgspec.Struct, frozen=True, array_like=True, tag="MirrorV1"):
    """A mirror, by its name."""

    value: str


class OperationStatus(_Record, frozen=True):
    """`progress`: 0 to 1."""

    failed: bool
    complete: bool
    progress: float | None = None


class Data(Protocol):
    """Long work on the data of volumes that are activated."""

    def copy(self, uri: str, domain: str, remote: str, blocklist: BlockList) -> CopyV1 | MirrorV1:
        """Begins to copy blocks to the disk at the URI `remote`."""
        ...

    def mirror(self, uri: str, domain: str, remote: str) -> CopyV1 | MirrorV1:
        """Begins to make all writes to the disk at the URI `remote` as well."""
        ...

    def stat(self, operation: CopyV1 | MirrorV1) -> OperationStatus:
        """How far it is."""
        ...

    def cancel(self, operation: CopyV1 | MirrorV1) -> None:
        """Asks it to end; it may go on for a while."""
        ...

    def destroy(self, operation: CopyV1 | MirrorV1) -> None:
        """Forgets one that has ended."""
        ...

    def ls(self) -> list[CopyV1 | MirrorV1]:
        """All that there are."""
        ...


# -- task -------------------------------------------------------------------------------------------------------------


class Pending(msgspec.Struct, frozen=True, array_like=True, tag="Pending"):
    """0 to 1."""

    value: float


class UnitResult(msgspec.Struct, frozen=True, array_like=True, tag="UnitResult"):
    """Done, without a result."""

    value: None


class VolumeResult(msgspec.Struct, frozen=True, array_like=True, tag="Volume"):
    """A volume was made."""

    value: VolumeRecord


class Completion(_Record, frozen=True):
    """`duration`: seconds."""

    duration: float
    result: UnitResult | VolumeResult | None = None


class Completed(msgspec.Struct, frozen=True, array_like=True, tag="Completed"):
    """It has ended well."""

    value: Completion


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="Failed"):
    """Why."""

    value: str


class TaskRecord(_Record, frozen=True):
    """`ctime`: when it began, Unix time."""

    id: str
    debug_info: str
    ctime: float
    state: Pending | Completed | Failed


class Task(Protocol):
    """Work that goes on after the function that began it has returned."""

    def stat(self, id: str) -> TaskRecord:
        """How far it is."""
        ...

    def cancel(self, id: str) -> None:
        """Asks it to end, completed or as if it had never begun; it may go on for a while."""
        ...

    def destroy(self, id: str) -> None:
        """Forgets one that has ended."""
        ...

    def ls(self) -> list[str]:
        """All that there are."""
        ...


# -- what belongs together --------------------------------------------------------------------------------------------

UNIMPLEMENTED = "Unimplemented"
EXCEPTIONS: dict[str, str] = {
    "Sr_not_attached": "The SR has to be attached first.",
    "SR_does_not_exist": "There is no such SR.",
    "Volume_does_not_exist": "There is no such volume in the SR.",
    UNIMPLEMENTED: "The plug-in does not have this function.",
    "Cancelled": "It was asked to end.",
    "Activated_on_another_host": "The volume is in use on the host with this uuid.",
}
"""What functions raise, each with one text."""

MODULES: dict[str, tuple[type, ...]] = {
    "plugin": (Plugin,),
    "volume": (SR, Volume),
    "datapath": (Datapath, Data),
    "task": (Task,),
}
"""The modules that plug-ins import, and the interfaces in each."""
MODULE_EXCEPTIONS: dict[str, tuple[str, ...]] = {"volume": tuple(EXCEPTIONS)}
"""Those of the others: Unimplemented alone."""
