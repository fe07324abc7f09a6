"""Storage on one host: SRs, disks, and who has them open (the SMAPIv2 seam).

A datapath (`dp`) names one user of a disk: `vbd/<vm uuid>/<device>` or `task/<ref>`. Attach makes a disk reachable,
activate allows I/O. At most one datapath in the pool may be activated for writing.

Requests about a disk that another host has activated are carried out by that one where it can: `redirected` says that
a host was asked for that reason, and asks no other.

Where the API's errors carry references of disks, those raised here carry locations (and uuids of SRs): the caller, who
asked by reference, puts them back.
"""

from __future__ import annotations

from typing import Final, Literal

from shared.bus.contract import Absent, Empty, Method, Record, Replay, Reply, Request, Topic

STATIC_DATAPATHS: Final = "static/vdi/"
"""Prefix of datapaths that are opened again after the machine was restarted, as soon as their SR is attached."""

SM_SESSION: Final = "_sm_session"
"""Key of a session's `other_config`: reference of the SR whose SMAPIv1 driver has it, and may set the records."""
SM_MAKES_FOR: Final = "_sm_makes_for"
"""Another: task of the call for which that driver makes a disk. Its row names the task until that has succeeded."""

Health = Literal["healthy", "recovering", "unreachable", "unavailable"]


class SrRef(Record, frozen=True):
    sr: str
    """uuid"""


class SrAttach(Record, frozen=True):
    """`sr`: uuid. `type`: SR type, such as `file`. `ref`: the SR's reference, for plug-ins that call back."""

    sr: str
    type: str
    device_config: dict[str, str]
    ref: str = ""


class SrCreate(Record, frozen=True):
    """`ref`: the SR's reference; its row is there before the medium, for plug-ins that call back."""

    sr: str
    type: str
    device_config: dict[str, str]
    physical_size: int = 0
    name_label: str = ""
    content_type: str = ""
    sm_config: dict[str, str] = {}
    ref: str = ""
    name_description: str = ""


class SrCreated(Record, frozen=True):
    """What to attach the SR with: the caller's configuration, as the plug-in has completed it."""

    device_config: dict[str, str]


class SrProbe(Record, frozen=True):
    type: str
    device_config: dict[str, str]
    sm_config: dict[str, str] = {}


class ProbedSr(Record, frozen=True):
    """Bytes. `uuid`: "" for a medium without an SR."""

    uuid: str
    name_label: str = ""
    name_description: str = ""
    total_space: int = 0
    free_space: int = 0
    clustered: bool = False
    health: Health = "healthy"


class ProbeResult(Record, frozen=True):
    """One place where an SR is or could be. `complete`: the configuration is all that SR.create or PBD.create needs."""

    configuration: dict[str, str]
    complete: bool
    sr: ProbedSr | None = None
    extra_info: dict[str, str] = {}


class SrProbed(Record, frozen=True):
    """`raw`: the text of a SMAPIv1 driver, which is the whole answer then."""

    results: list[ProbeResult] = []
    raw: str = ""


class SrName(Record, frozen=True):
    sr: str
    name_label: str
    name_description: str


class SrStat(Record, frozen=True):
    """Bytes."""

    physical_size: int
    physical_utilisation: int
    virtual_allocation: int
    clustered: bool = False
    health: Health = "healthy"


class VdiInfo(Record, frozen=True):
    """`location` names the disk inside its SR. Sizes in bytes.

    `snapshot_of`: location or uuid of the disk that it is a snapshot of, "" if unknown. `snapshot_time`: as in the API,
    "" if unknown. `managed`: false for a hidden node of a tree, which only some plug-ins have rows for.
    """

    uuid: str
    location: str
    virtual_size: int
    physical_utilisation: int
    name_label: str = ""
    name_description: str = ""
    type: str = "user"
    read_only: bool = False
    sm_config: dict[str, str] = {}
    sharable: bool = False
    managed: bool = True
    is_a_snapshot: bool = False
    snapshot_of: str = ""
    snapshot_time: str = ""
    metadata_of_pool: str = ""
    cbt_enabled: bool = False
    content_id: str = ""


class SrScan(Record, frozen=True):
    disks: list[VdiInfo]
    stat: SrStat


class VdiCreate(Record, frozen=True):
    sr: str
    uuid: str
    virtual_size: int
    name_label: str = ""
    name_description: str = ""
    type: str = "user"
    sm_config: dict[str, str] = {}
    sharable: bool = False
    read_only: bool = False
    is_a_snapshot: bool = False
    snapshot_of: str = ""
    snapshot_time: str = ""
    metadata_of_pool: str = ""


class VdiRef(Record, frozen=True):
    sr: str
    location: str
    redirected: bool = False


class VdiIntroduce(Record, frozen=True):
    """`uuid`: what the caller wants it to be; the plug-in says what it is."""

    sr: str
    uuid: str
    location: str
    sm_config: dict[str, str] = {}


class VdiClone(Record, frozen=True):
    """A new writable disk with the content of another; `snapshot`: the new one is the frozen side.

    `driver_params`: hints for the plug-in, as the API has them.
    """

    sr: str
    location: str
    uuid: str
    snapshot: bool = False
    name_label: str = ""
    driver_params: dict[str, str] = {}
    redirected: bool = False


class VdiPair(Record, frozen=True):
    """Two disks of one SR; each method says which is which."""

    sr: str
    location: str
    other: str
    redirected: bool = False


class VdiDescription(Record, frozen=True):
    """What the API has changed, for plug-ins that keep it with the disk. None: unchanged."""

    sr: str
    location: str
    name_label: str | None = None
    name_description: str | None = None
    sm_config: dict[str, str] | None = None
    content_id: str | None = None
    redirected: bool = False


class ChangedBlocks(Record, frozen=True):
    """`bitmap`: base64; the most significant bit of its first byte is the first block. `granularity`: bytes."""

    bitmap: str
    granularity: int


class VdiList(Record, frozen=True):
    disks: list[VdiInfo]


class StaticConfig(Record, frozen=True):
    """What attaches a disk without the database: for what a host needs before it has one."""

    config: str


class VdiPersistence(Record, frozen=True):
    """`persistent` false: what a VM writes to the disk goes when the next run begins."""

    sr: str
    location: str
    persistent: bool


class Epoch(Record, frozen=True):
    """`begin`: the VM is about to start with the disk; otherwise it has ended. `persistent`: the disk keeps what it is
    told.
    """

    sr: str
    location: str
    vm: str
    begin: bool
    persistent: bool = True


class VdiResize(Record, frozen=True):
    sr: str
    location: str
    virtual_size: int
    redirected: bool = False


class DiskOpen(Record, frozen=True):
    """One disk for one datapath."""

    dp: str
    sr: str
    location: str
    writable: bool


class Open(Record, frozen=True):
    """Attach and activate several disks in one message; all or none."""

    disks: list[DiskOpen]


class Backend(Record, frozen=True):
    """Where the hypervisor finds the disk. `kind`: "file" | "block" | "nbd"; `format`: "raw" | "qcow2" | "vhd" |
    "none".

    `none` is a simulated disk without content. `shared`: others may write to it at the same time, so images are not
    locked; `direct`: and the page cache is passed by.
    """

    dp: str
    kind: str
    path: str
    format: str
    writable: bool
    shared: bool = False
    direct: bool = False


class Opened(Record, frozen=True):
    backends: list[Backend]


class Close(Record, frozen=True):
    """Deactivate and detach whatever these datapaths hold; datapaths that hold nothing are not an error."""

    dps: list[str]


class HandOver(Record, frozen=True):
    """Two datapaths of one host, and the disk that `dp` is to have from now on: the one that `other` has open."""

    dp: str
    other: str
    sr: str
    location: str


class Datapath(Record, frozen=True):
    """`state`: "attached" | "activated". `leaked`: could not be closed, and is tried again."""

    dp: str
    sr: str
    location: str
    state: str
    writable: bool
    leaked: bool = False


class Datapaths(Record, frozen=True):
    datapaths: list[Datapath]


class Fence(Record, frozen=True):
    """`host`: uuid of a host that certainly does not run any more: powered off, or fenced by HA."""

    host: str


class Fenced(Record, frozen=True):
    """`leases`: how many activations of that host were forgotten."""

    leases: int


class DriverInfo(Record, frozen=True):
    """What an SR type can do; becomes a row of class SM."""

    type: str
    name: str
    description: str
    vendor: str
    copyright: str
    version: str
    required_api_version: str
    features: dict[str, int]
    configuration: dict[str, str]
    driver_filename: str = ""
    required_cluster_stack: list[str] = []
    supported_image_formats: list[str] = []


class Drivers(Record, frozen=True):
    drivers: list[DriverInfo]


class DriversChanged(Record, frozen=True):
    """The SR types of a host are others than before: ask again."""

    host: str


class Merge(Record, frozen=True):
    """Something has happened to the merging of an SR's images on a host (uuids).

    `event`: "begin"; "end": done; "stopped": it gave way to who needs the images, and is begun again; "failed": `why`,
    and it is tried again; "idle": there is nothing to do, or the SR is not attached any more. `top` is merged into
    `base` (images by name, "" where it is about none). `how`: "offline", "online" (by the VM's QEMU), "leaf" (while the
    VM's disk waits). `seconds`: how long it took. `waiting`: merges that have to wait for who has the images open.
    """

    host: str
    sr: str
    event: Literal["begin", "end", "stopped", "failed", "idle"]
    top: str = ""
    base: str = ""
    how: str = ""
    seconds: float = 0.0
    why: str = ""
    waiting: int = 0


_S = "storage"
_SR_ERRORS = (
    *("SR_UNKNOWN_DRIVER", "SR_BACKEND_FAILURE", "SR_BACKEND_FAILURE_*", "SR_DEVICE_IN_USE", "SR_UNHEALTHY"),
    *("UNIMPLEMENTED_IN_SM_BACKEND", "SCRIPT_MISSING", "SCRIPT_NOT_EXECUTABLE", "SCRIPT_FAILED"),
)
_VDI_ERRORS = (
    *("SR_NOT_ATTACHED", "SR_FULL", "VDI_MISSING", "VDI_IN_USE", "VDI_READONLY"),
    *("SR_BACKEND_FAILURE", "SR_BACKEND_FAILURE_*", "UNIMPLEMENTED_IN_SM_BACKEND"),
    *("SCRIPT_MISSING", "SCRIPT_NOT_EXECUTABLE", "SCRIPT_FAILED"),
)
LONG = 3600.0
"""Seconds: drivers of networked storage take minutes for many things, and are not hurried."""


def _sr(
    name: str,
    request: type[Request],
    reply: type[Reply],
    summary: str,
    timeout: float = LONG,
    errors: tuple[str, ...] = _SR_ERRORS,
) -> Method[Request, Reply]:
    return Method(_S, name, request, reply, summary, timeout=timeout, errors=errors)


def _vdi(name: str, request: type[Request], reply: type[Reply], summary: str) -> Method[Request, Reply]:
    return Method(_S, name, request, reply, summary, timeout=LONG, errors=_VDI_ERRORS)


DRIVERS = Method(_S, "drivers", Empty, Drivers, "The SR types this host can run.")
DRIVERS_CHANGED: Topic[DriversChanged] = Topic(
    "storage.{host}.drivers", DriversChanged, "SR types of a host have come or gone."
)
MERGES: Topic[Merge] = Topic("storage.{host}.merges", Merge, "Images of an SR are merged, or cannot be.")

SR_PROBE = _sr("sr_probe", SrProbe, SrProbed, "What SRs a medium holds, or where one could be made.")
SR_CREATE = _sr("sr_create", SrCreate, SrCreated, "Prepares the medium of a new SR.")
SR_ATTACH = _sr("sr_attach", SrAttach, SrStat, "Makes an SR usable on this host.")
SR_DETACH = _sr("sr_detach", SrRef, Empty, "Lets go of an SR.")
SR_DESTROY = _sr("sr_destroy", SrRef, Empty, "Removes the SR's medium.", errors=(*_SR_ERRORS, "SR_NOT_EMPTY"))
SR_SCAN = _sr("sr_scan", SrRef, SrScan, "The disks an SR holds now, and its space.")
SR_STAT = _sr("sr_stat", SrRef, SrStat, "An SR's space and health.")
SR_SET_NAME = _sr("sr_set_name", SrName, Empty, "For plug-ins that keep an SR's name on its medium.")

VDI_CREATE = _vdi("vdi_create", VdiCreate, VdiInfo, "A new empty disk.")
VDI_DESTROY = _vdi("vdi_destroy", VdiRef, Empty, "Deletes a disk nobody has open.")
VDI_CLONE = _vdi("vdi_clone", VdiClone, VdiInfo, "A copy-on-write copy of a disk.")
VDI_COPY = Method(
    _S,
    "vdi_copy",
    VdiClone,
    VdiInfo,
    "A full copy of a disk in the same SR; progress on the task.",
    timeout=86400,
    replay=Replay.ONCE,
    errors=_VDI_ERRORS,
)
VDI_RESIZE = _vdi("vdi_resize", VdiResize, VdiInfo, "Gives a disk another size, also while a VM here has it open.")
VDI_STAT = _vdi("vdi_stat", VdiRef, VdiInfo, "One disk as its SR sees it now.")
VDI_INTRODUCE = _vdi("vdi_introduce", VdiIntroduce, VdiInfo, "A disk that is in the SR and has no row.")
VDI_DESCRIBE = _vdi("vdi_describe", VdiDescription, Empty, "For plug-ins that keep with a disk what it is called.")
VDI_REVERT = _vdi(
    "vdi_revert", VdiPair, VdiInfo, "Gives the disk `other` the content of its snapshot `location`; `other` stays."
)
VDI_COMPOSE = _vdi("vdi_compose", VdiPair, Empty, "Puts the disk `location` (child) over the disk `other` (parent).")
VDI_SIMILAR_CONTENT = _vdi(
    "vdi_similar_content", VdiRef, VdiList, "Disks of the SR that share most with it, nearest first."
)
VDI_ENABLE_CBT = _vdi("vdi_enable_cbt", VdiRef, Empty, "From now on, changed blocks are kept track of.")
VDI_DISABLE_CBT = _vdi("vdi_disable_cbt", VdiRef, Empty, "Changed blocks are not kept track of any more.")
VDI_DATA_DESTROY = _vdi("vdi_data_destroy", VdiRef, Empty, "Deletes a snapshot's data, keeps its changed blocks.")
VDI_CHANGED_BLOCKS = _vdi(
    "vdi_changed_blocks", VdiPair, ChangedBlocks, "Which blocks differ between `location` and the later `other`."
)
VDI_GENERATE_CONFIG = _vdi("vdi_generate_config", VdiRef, StaticConfig, "For `attach` without a database.")
VDI_SET_PERSISTENT = _vdi("vdi_set_persistent", VdiPersistence, Empty, "For plug-ins that prepare for resets.")
VDI_EPOCH = _vdi("vdi_epoch", Epoch, Empty, "A VM begins or ends a run with the disk: resets disks that forget.")

OPEN = Method(_S, "open", Open, Opened, "Attaches and activates disks for datapaths.", timeout=LONG, errors=_VDI_ERRORS)
CLOSE = Method(_S, "close", Close, Empty, "Deactivates and detaches datapaths.", timeout=LONG, absent=Absent.WAIT)
HAND_OVER = Method(
    _S,
    "hand_over",
    HandOver,
    Empty,
    "Two datapaths change names, so that a user goes on with another disk; the disk that it had is closed.",
    timeout=LONG,
    absent=Absent.WAIT,
    errors=_VDI_ERRORS,
)
DATAPATHS = Method(_S, "datapaths", Empty, Datapaths, "Everything that is attached or activated on this host.")
FENCE = Method(
    _S,
    "fence",
    Fence,
    Fenced,
    "Lets others activate what a dead host had activated, in all SRs attached here. Never guessed, only when told.",
    errors=("HOST_IS_LIVE",),
)
