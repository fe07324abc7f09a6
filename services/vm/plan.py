"""What operations are made of, and what to do about guests that stop by themselves. Pure.

A plan is a list of stages; the micro-operations of one stage run side by side. Every micro-operation has an undo, which
is a micro-operation too and harmless when there is nothing to undo. So what ends a VM in order is also what cleans up
after a start that failed half-way.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from services.vm.backend import StopReason
from shared.contracts.vm import Cause, VbdSpec, VmSpec
from shared.errors import ApiError


class MicroOp(StrEnum):
    """RESERVE writes the record, FORGET removes it. After SURVIVE the domain outlives the service's process.

    Of one disk of a running domain: MOVE notes that it is on its way, KEEP that the domain has it, DROP that it is
    gone. REMOVE_DISK asks the guest for it, TAKE_DISK does not.
    """

    RESERVE = "reserve"
    OPEN_DISKS = "open-disks"
    PLUG_VIFS = "plug-vifs"
    CREATE = "create"
    SURVIVE = "survive"
    UNPAUSE = "unpause"

    CONDEMN = "condemn"
    DESTROY = "destroy"
    CLOSE_DISKS = "close-disks"
    UNPLUG_VIFS = "unplug-vifs"
    FORGET = "forget"

    MOVE = "move"
    OPEN_DISK = "open-disk"
    ADD_DISK = "add-disk"
    KEEP = "keep"

    REMOVE_DISK = "remove-disk"
    TAKE_DISK = "take-disk"
    CLOSE_DISK = "close-disk"
    DROP = "drop"


Stage = tuple[MicroOp, ...]
Plan = tuple[Stage, ...]

UNDO: dict[MicroOp, MicroOp] = {
    MicroOp.RESERVE: MicroOp.FORGET,
    MicroOp.OPEN_DISKS: MicroOp.CLOSE_DISKS,
    MicroOp.PLUG_VIFS: MicroOp.UNPLUG_VIFS,
    MicroOp.CREATE: MicroOp.DESTROY,
    MicroOp.SURVIVE: MicroOp.CONDEMN,
    MicroOp.MOVE: MicroOp.DROP,
    MicroOp.OPEN_DISK: MicroOp.CLOSE_DISK,
    MicroOp.ADD_DISK: MicroOp.TAKE_DISK,
}
"""Those left out change nothing that another one's undo would not end."""


def start(vm: VmSpec, paused: bool) -> Plan:
    devices = ((MicroOp.OPEN_DISKS,) if has_disks(vm) else ()) + ((MicroOp.PLUG_VIFS,) if vm.vifs else ())
    stages: Plan = ((MicroOp.RESERVE,), devices, (MicroOp.CREATE,), (MicroOp.SURVIVE,))
    return tuple(stage for stage in (*stages, () if paused else (MicroOp.UNPAUSE,)) if stage)


def release(vm: VmSpec, moving: Sequence[VbdSpec] = ()) -> Plan:
    """Ends the domain, however far its start came, and gives back its devices, those on their way too."""
    whole = msgspec.structs.replace(vm, vbds=[*vm.vbds, *moving])
    return ((MicroOp.CONDEMN,), *undo(start(whole, paused=False), condemned=True))


def plug(vbd: VbdSpec) -> Plan:
    """Gives a running domain a disk. An empty drive is nothing to open."""
    if not vbd.sr:
        return ((MicroOp.ADD_DISK,), (MicroOp.KEEP,))
    return ((MicroOp.MOVE,), (MicroOp.OPEN_DISK,), (MicroOp.ADD_DISK,), (MicroOp.KEEP,))


def unplug(vbd: VbdSpec, force: bool) -> Plan:
    """Takes a disk from a running domain. While the guest holds it nothing has changed; then there is no way back."""
    take = MicroOp.TAKE_DISK if force else MicroOp.REMOVE_DISK
    if not vbd.sr:
        return ((take,), (MicroOp.MOVE,), (MicroOp.DROP,))
    return ((take,), (MicroOp.MOVE,), (MicroOp.CLOSE_DISK,), (MicroOp.DROP,))


def close(vbd: VbdSpec) -> Plan:
    """For a disk on its way that the domain does not have."""
    return ((MicroOp.CLOSE_DISK,), (MicroOp.DROP,)) if vbd.sr else ((MicroOp.DROP,),)


def undo(begun: Plan, *, condemned: bool = False) -> Plan:
    """For the stages that were begun, also the one that failed: it may have come half-way."""
    stages = (tuple(UNDO[op] for op in stage if op in UNDO) for stage in reversed(begun))
    return tuple(stage for stage in stages if stage and not (condemned and stage == (MicroOp.CONDEMN,)))


def attached(vm: VmSpec) -> list[VbdSpec]:
    """Those that a VM starts with: an empty drive only with firmware, which knows drives."""
    return [vbd for vbd in vm.vbds if vbd.sr or vm.domain_type == "hvm"]


def has_disks(vm: VmSpec) -> bool:
    return any(vbd.sr for vbd in vm.vbds)


def datapath(vm: str, device: str) -> str:
    """The name under which a VBD opens its disk."""
    return f"vbd/{vm}/{device}"


def mirror_datapath(vm: str, device: str, vdi: str) -> str:
    """The name under which the disk that a VBD is moved to is opened. Plug-ins know it by that for as long as it is
    open; `vdi` (reference) makes each move have a name of its own.
    """
    return f"vbd/{vm}/{device}/{vdi}"


def of_datapath(dp: str) -> tuple[str, str]:
    """VM (uuid) and device of a datapath. Raises DEVICE_NOT_ATTACHED for one that is no VBD's."""
    kind, *rest = dp.split("/", 3)
    if kind != "vbd" or len(rest) < 2 or not rest[1]:
        raise ApiError("DEVICE_NOT_ATTACHED", dp)
    return rest[0], rest[1]


class Reaction(StrEnum):
    HALT = "halt"
    RESTART = "restart"
    PRESERVE = "preserve"


CAUSES = {
    StopReason.SHUTDOWN: Cause.GUEST_SHUTDOWN,
    StopReason.REBOOT: Cause.GUEST_REBOOT,
    StopReason.CRASH: Cause.GUEST_CRASH,
    StopReason.DIED: Cause.PROCESS_DIED,
    StopReason.ENDED: Cause.PROCESS_DIED,
}


def reaction(vm: VmSpec, reason: StopReason, uptime: float, minimum_uptime: float) -> Reaction:
    """What `actions_after_*` want done. A crash sooner than `minimum_uptime` stays down, lest it goes on for ever.

    Times in seconds.
    """
    actions = {
        StopReason.SHUTDOWN: vm.actions_after_shutdown,
        StopReason.REBOOT: vm.actions_after_reboot,
        StopReason.CRASH: vm.actions_after_crash,
        StopReason.DIED: vm.actions_after_crash,
        StopReason.ENDED: "destroy",
    }
    crashed = reason in (StopReason.CRASH, StopReason.DIED)
    match actions[reason].removeprefix("coredump_and_"):
        case "restart" | "rename_restart" | "soft_reboot":
            return Reaction.HALT if crashed and uptime < minimum_uptime else Reaction.RESTART
        case "preserve" if reason is not StopReason.DIED:
            return Reaction.PRESERVE
    return Reaction.HALT


def pause_before_restart(reason: StopReason, uptime: float, minimum_uptime: float, pause: float) -> float:
    """Seconds to wait before a guest that stopped by itself is started again."""
    return pause if reason is not StopReason.DIED and uptime < minimum_uptime else 0.0
