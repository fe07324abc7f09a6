"""Disks that go from one host of the pool to another (served by the storage service).

The host that has the target opens it and serves it by NBD inside TLS, to the one host that asked for it. Each shows the
certificate that it has for other hosts, and takes no other one than that of its peer, which it has been told over the
bus; the export's name is a secret of that disk. The host that has the source copies (`shared.contracts.transfer.COPY`
with a `to_host`), or mirrors while a VM has the source open:

    MIRROR_START   the target is opened there, and the hypervisor begins to write to both
    MIRROR_STATE   until it is ready: from then on each write is in both before the guest hears that it is done
    MIRROR_END     `whole`: both are alike, and the target is closed, or goes on under another datapath; else: is let go

Who wants the whole copy makes the guest stand still before the end. The target is somebody else's to make and to
remove, who asks RECEIVE_END before that if the source's host is silent. Two ends of a motion end together: when one
service, or one program, ends, so does the other side, and the disk there is closed.
"""

from __future__ import annotations

from shared.bus.contract import Absent, Empty, Method, Record
from shared.contracts.storage import LONG
from shared.contracts.vm_disks import MirrorState

PREFIX = "motion/"
"""Of datapaths of targets of mirrors: `motion/<uuid of the disk>`."""


class Receive(Record, frozen=True):
    """`dp`: of the target. `certificate`: PEM, of the only host (`source`, uuid) that may write to it."""

    dp: str
    sr: str
    location: str
    source: str
    certificate: str


class Receiving(Record, frozen=True):
    """Where the target is served. `address` "": a simulated disk, which is nowhere. `name`: whose certificate it is.
    `size`: bytes.
    """

    size: int
    address: str = ""
    port: int = 0
    export: str = ""
    certificate: str = ""
    name: str = ""


class Reception(Record, frozen=True):
    dp: str


class ReceiveEnd(Record, frozen=True):
    """`keep`: the datapath that has the disk from now on; "": it is closed."""

    dp: str
    keep: str = ""


class Mirror(Record, frozen=True):
    """`dp`: of the target, which is in `sr` of the host `to_host` (uuid), and names the mirror. `disk`: the datapath
    of the VM's disk, `vbd/<vm uuid>/<device>`. `shallow`: as in `DiskMirror`.
    """

    dp: str
    disk: str
    to_host: str
    sr: str
    location: str
    shallow: bool = False


class MirrorName(Record, frozen=True):
    dp: str


class MirrorEnd(Record, frozen=True):
    """`whole`: only if the target has all that the disk has; otherwise it is let go of, with whatever it has. `keep`:
    as in `ReceiveEnd`, of a target that is whole.
    """

    dp: str
    whole: bool
    keep: str = ""


_S = "storage"
_ERRORS = (
    *("SR_NOT_ATTACHED", "VDI_MISSING", "VDI_IN_USE", "VDI_READONLY", "SR_BACKEND_FAILURE_*"),
    *("HOST_OFFLINE", "INTERNAL_ERROR"),
)

RECEIVE = Method(
    _S, "receive", Receive, Receiving, "Opens a disk and serves it to another host.", timeout=LONG, errors=_ERRORS
)
RECEIVE_HELD = Method(
    _S,
    "receive_held",
    Reception,
    Empty,
    "The other host has come: from now on the disk is closed when it leaves. Raises for a disk that is not served.",
    errors=("INTERNAL_ERROR",),
)
RECEIVE_END = Method(
    _S,
    "receive_end",
    ReceiveEnd,
    Empty,
    "A disk is not served any more, and closed; one that was not, or is not open, is no error.",
    timeout=LONG,
    errors=_ERRORS,
)
MIRROR_START = Method(
    _S,
    "mirror_start",
    Mirror,
    Empty,
    "Begins to mirror a VM's disk to another host. One that goes on already goes on.",
    timeout=LONG,
    errors=(*_ERRORS, "DEVICE_NOT_ATTACHED", "OTHER_OPERATION_IN_PROGRESS"),
)
MIRROR_STATE = Method(_S, "mirror_state", MirrorName, MirrorState, "How far a mirror is; not running: it has failed.")
MIRROR_END = Method(
    _S,
    "mirror_end",
    MirrorEnd,
    Empty,
    "Ends a mirror; one that is not there is no error unless it should be whole.",
    timeout=LONG,
    absent=Absent.WAIT,
    errors=(*_ERRORS, "MIRROR_FAILED"),
)
