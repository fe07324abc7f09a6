"""Storage on one host: SRs, disks, and who has them open (the SMAPIv2 seam).

A datapath (`dp`) names one user of a disk: `vbd/<vm uuid>/<device>` or `task/<ref>`. Attach makes a disk reachable,
activate allows I/O. At most one datapath in the pool may be activated for writing.

Where the API's errors carry references of disks, those raised here carry locations (and uuids of SRs): the caller, who
asked by reference, puts them back.
"""

from __future__ import annotations

from shared.bus.contract import Absent, Empty, Method, Record, Replay


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
    sr: str
    type: str
    device_config: dict[str, str]
    physical_size: int = 0
    name_label: str = ""
    content_type: str = ""
    sm_config: dict[str, str] = {}


class SrStat(Record, frozen=True):
    """Bytes."""

    physical_size: int
    physical_utilisation: int
    virtual_allocation: int


class VdiInfo(Record, frozen=True):
    """`location` names the disk inside its SR. Sizes in bytes."""

    uuid: str
    location: str
    virtual_size: int
    physical_utilisation: int
    name_label: str = ""
    name_description: str = ""
    type: str = "user"
    read_only: bool = False
    sm_config: dict[str, str] = {}


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


class VdiRef(Record, frozen=True):
    sr: str
    location: str


class VdiClone(Record, frozen=True):
    """A new writable disk with the content of another; `snapshot`: the new one is the frozen side."""

    sr: str
    location: str
    uuid: str
    snapshot: bool = False
    name_label: str = ""


class VdiResize(Record, frozen=True):
    sr: str
    location: str
    virtual_size: int


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

    `none` is a simulated disk without content.
    """

    dp: str
    kind: str
    path: str
    format: str
    writable: bool


class Opened(Record, frozen=True):
    backends: list[Backend]


class Close(Record, frozen=True):
    """Deactivate and detach whatever these datapaths hold; datapaths that hold nothing are not an error."""

    dps: list[str]


class Datapath(Record, frozen=True):
    """`state`: "attached" | "activated"."""

    dp: str
    sr: str
    location: str
    state: str
    writable: bool


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


class Drivers(Record, frozen=True):
    drivers: list[DriverInfo]


_S = "storage"
_SR_ERRORS = ("SR_UNKNOWN_DRIVER", "SR_BACKEND_FAILURE", "SR_BACKEND_FAILURE_*", "SR_DEVICE_IN_USE")
_VDI_ERRORS = ("SR_NOT_ATTACHED", "SR_FULL", "VDI_MISSING", "VDI_IN_USE", "VDI_READONLY", "SR_BACKEND_FAILURE_*")

DRIVERS = Method(_S, "drivers", Empty, Drivers, "The SR types this host can run.")
SR_CREATE = Method(_S, "sr_create", SrCreate, Empty, "Prepares the medium of a new SR.", timeout=300, errors=_SR_ERRORS)
SR_ATTACH = Method(
    _S, "sr_attach", SrAttach, SrStat, "Makes an SR usable on this host.", timeout=300, errors=_SR_ERRORS
)
SR_DETACH = Method(_S, "sr_detach", SrRef, Empty, "Lets go of an SR.", timeout=300, errors=("SR_DEVICE_IN_USE",))
SR_DESTROY = Method(_S, "sr_destroy", SrRef, Empty, "Removes the SR's medium.", timeout=300, errors=("SR_NOT_EMPTY",))
SR_SCAN = Method(_S, "sr_scan", SrRef, SrScan, "The disks an SR holds now.", timeout=300, errors=_VDI_ERRORS)
VDI_CREATE = Method(_S, "vdi_create", VdiCreate, VdiInfo, "A new empty disk.", timeout=300, errors=_VDI_ERRORS)
VDI_DESTROY = Method(
    _S, "vdi_destroy", VdiRef, Empty, "Deletes a disk nobody has open.", timeout=300, errors=_VDI_ERRORS
)
VDI_CLONE = Method(
    _S, "vdi_clone", VdiClone, VdiInfo, "A copy-on-write copy of a disk.", timeout=300, errors=_VDI_ERRORS
)
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
VDI_RESIZE = Method(
    _S, "vdi_resize", VdiResize, VdiInfo, "Grows a disk nobody has open.", timeout=300, errors=_VDI_ERRORS
)
OPEN = Method(_S, "open", Open, Opened, "Attaches and activates disks for datapaths.", timeout=120, errors=_VDI_ERRORS)
CLOSE = Method(_S, "close", Close, Empty, "Deactivates and detaches datapaths.", timeout=120, absent=Absent.WAIT)
DATAPATHS = Method(_S, "datapaths", Empty, Datapaths, "Everything that is attached or activated on this host.")
FENCE = Method(
    _S,
    "fence",
    Fence,
    Fenced,
    "Lets others activate what a dead host had activated, in all SRs attached here. Never guessed, only when told.",
    errors=("HOST_IS_LIVE",),
)
