"""Disks of VMs that run on a host: plugging them, and changing images while a hypervisor has them open.

Served by the VM service. What the API asks for names a VM and a VBD. What the storage service asks for names a
datapath, `vbd/<vm uuid>/<device>`: it owns the images, the hypervisor only has them open. Images are named by path.

An image keeps the name that it was opened by for as long as it is open: the hypervisor opens it by that name once more
when it is to be written to. To give images other names: pause, rename, resume with what is to be opened.

A disk takes one of these at a time. While it is committed or mirrored, others get OTHER_OPERATION_IN_PROGRESS; the same
request once more joins the one that goes on. Cancelling the call of a commit ends it, with nothing lost.
"""

from __future__ import annotations

from shared.bus.contract import Absent, Empty, Method, Record
from shared.contracts.storage import Backend
from shared.contracts.vm import VbdSpec, VmState


class VbdPlug(Record, frozen=True):
    """Also the request of an insert: the drive is there then, and empty."""

    vm: str
    vbd: VbdSpec


class VbdUnplug(Record, frozen=True):
    """`vbd`: reference. `force`: does not wait for the guest to let go. Also the request of an eject."""

    vm: str
    vbd: str
    force: bool = False


class VbdMove(Record, frozen=True):
    """`vbd`: as it is to be, with the disk that its content is moved to, which is large enough and holds nothing."""

    vm: str
    vbd: VbdSpec


class VbdMoved(Record, frozen=True):
    """`moved`: the VM has, or had until its end, the new disk. `known`: that is sure; it has a domain, or this process
    of the service has seen what became of the move.
    """

    moved: bool
    known: bool


class DiskId(Record, frozen=True):
    dp: str


class Chain(Record, frozen=True):
    """Images that are open, the one that is written to first, each over the next. Empty: that disk is not open here.

    `virtual_size`: bytes, as the guest sees it.
    """

    images: list[str] = []
    virtual_size: int = 0


class DiskSnapshot(Record, frozen=True):
    """`overlay`: a new qcow2 image over the one that is written to now."""

    dp: str
    overlay: str


class DiskCommit(Record, frozen=True):
    """What `top` and the images down to `base` hold goes into `base`, which the image above `top`, or the guest, then
    continues on. `backing`: what the image above `top` is told that its backing file is called, "" for `base`.
    """

    dp: str
    top: str
    base: str
    backing: str = ""


class DiskResize(Record, frozen=True):
    dp: str
    virtual_size: int


class DiskResume(Record, frozen=True):
    """`backend`: what to open instead of what was open, if that has changed."""

    dp: str
    backend: Backend | None = None


class DiskMirror(Record, frozen=True):
    """Everything that the disk holds, and from then on whatever is written, goes to the target as well.

    `shallow`: the target has the content of all images but the top one already.
    """

    dp: str
    target: Backend
    shallow: bool = False


class DiskMirrorEnd(Record, frozen=True):
    """`pivot`: the guest continues on the target alone; otherwise the target is let go of. `whole`: with all that the
    disk has, or it fails.
    """

    dp: str
    pivot: bool
    whole: bool = False


class MirrorState(Record, frozen=True):
    """`ready`: the target has everything, and gets each write before the guest hears that it is done."""

    running: bool
    ready: bool = False
    failed: str = ""
    progress: float = 0.0


_V = "vm"
_OPEN = ("DEVICE_NOT_ATTACHED", "OTHER_OPERATION_IN_PROGRESS", "INTERNAL_ERROR")

VBD_PLUG = Method(
    _V,
    "vbd_plug",
    VbdPlug,
    VmState,
    "Opens the disk and gives it to the running VM.",
    timeout=300,
    errors=("VM_BAD_POWER_STATE", "DEVICE_ALREADY_ATTACHED", "DEVICE_ATTACH_TIMEOUT", "VDI_IN_USE"),
)
VBD_UNPLUG = Method(
    _V,
    "vbd_unplug",
    VbdUnplug,
    VmState,
    "Takes the disk from the running VM and closes it.",
    timeout=300,
    errors=("VM_BAD_POWER_STATE", "DEVICE_ALREADY_DETACHED", "DEVICE_DETACH_TIMEOUT", "DEVICE_DETACH_REJECTED"),
)
VBD_INSERT = Method(
    _V, "vbd_insert", VbdPlug, VmState, "Puts a disk into a drive.", timeout=300, errors=VBD_PLUG.errors
)
VBD_EJECT = Method(
    _V, "vbd_eject", VbdUnplug, VmState, "Takes the disk out of a drive.", timeout=300, errors=VBD_UNPLUG.errors
)
VBD_MOVE = Method(
    _V,
    "vbd_move",
    VbdMove,
    VmState,
    "Mirrors the disk of a running VM to another one and has the VM go on with that. Progress on the task; cancelled or"
    " failed, the VM goes on where it was.",
    timeout=86400,
    errors=("VM_BAD_POWER_STATE", "DEVICE_NOT_ATTACHED", "OTHER_OPERATION_IN_PROGRESS", "MIRROR_FAILED", "VDI_IN_USE"),
)
VBD_MOVE_END = Method(
    _V,
    "vbd_move_end",
    VbdMove,
    VbdMoved,
    "Ends a move of a disk, whatever has become of it, and tells which disk the VM has from now on.",
    timeout=300,
    absent=Absent.WAIT,
    errors=("INTERNAL_ERROR",),
)

DISK_CHAIN = Method(_V, "disk_chain", DiskId, Chain, "What the hypervisor has open for a datapath.")
DISK_SNAPSHOT = Method(
    _V, "disk_snapshot", DiskSnapshot, Empty, "The guest goes on in a new image.", timeout=60, errors=_OPEN
)
DISK_COMMIT = Method(
    _V,
    "disk_commit",
    DiskCommit,
    Empty,
    "Moves images' content down while the guest runs; asked again, it goes on. Progress on the task.",
    timeout=86400,
    errors=_OPEN,
)
DISK_RESIZE = Method(_V, "disk_resize", DiskResize, Empty, "Grows the image and tells the guest.", errors=_OPEN)
DISK_PAUSE = Method(
    _V, "disk_pause", DiskId, Empty, "Nothing is in flight and no image is open until it is resumed.", errors=_OPEN
)
DISK_RESUME = Method(_V, "disk_resume", DiskResume, Empty, "Opens the images again.", timeout=60, errors=_OPEN)
DISK_MIRROR = Method(_V, "disk_mirror", DiskMirror, Empty, "Starts a mirror of a disk.", timeout=60, errors=_OPEN)
DISK_MIRROR_STATE = Method(_V, "disk_mirror_state", DiskId, MirrorState, "How far a mirror is.", errors=_OPEN)
DISK_MIRROR_END = Method(_V, "disk_mirror_end", DiskMirrorEnd, Empty, "Ends a mirror.", timeout=120, errors=_OPEN)
