"""What operations are made of, and what to do about guests that stop by themselves. Pure.

A plan is a list of stages; the micro-operations of one stage run side by side. Every micro-operation has an undo, which
is a micro-operation too and harmless when there is nothing to undo. So what ends a VM in order is also what cleans up
after a start that failed half-way.
"""

from __future__ import annotations

from enum import StrEnum

from services.vm.backend import StopReason
from shared.contracts.vm import Cause, VmSpec
from shared.errors import ApiError


class MicroOp(StrEnum):
    """RESERVE writes the record, FORGET removes it. After SURVIVE the domain outlives the service's process."""

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


Stage = tuple[MicroOp, ...]
Plan = tuple[Stage, ...]

UNDO: dict[MicroOp, MicroOp] = {
    MicroOp.RESERVE: MicroOp.FORGET,
    MicroOp.OPEN_DISKS: MicroOp.CLOSE_DISKS,
    MicroOp.PLUG_VIFS: MicroOp.UNPLUG_VIFS,
    MicroOp.CREATE: MicroOp.DESTROY,
    MicroOp.SURVIVE: MicroOp.CONDEMN,
}
"""Those left out change nothing that another one's undo would not end."""


def start(vm: VmSpec, paused: bool) -> Plan:
    devices = ((MicroOp.OPEN_DISKS,) if has_disks(vm) else ()) + ((MicroOp.PLUG_VIFS,) if vm.vifs else ())
    stages: Plan = ((MicroOp.RESERVE,), devices, (MicroOp.CREATE,), (MicroOp.SURVIVE,))
    return tuple(stage for stage in (*stages, () if paused else (MicroOp.UNPAUSE,)) if stage)


def release(vm: VmSpec) -> Plan:
    """Ends the domain, however far its start came, and gives back its devices."""
    return ((MicroOp.CONDEMN,), *undo(start(vm, paused=False), condemned=True))


def undo(begun: Plan, *, condemned: bool = False) -> Plan:
    """For the stages that were begun, also the one that failed: it may have come half-way."""
    stages = (tuple(UNDO[op] for op in stage if op in UNDO) for stage in reversed(begun))
    return tuple(stage for stage in stages if stage and not (condemned and stage == (MicroOp.CONDEMN,)))


def has_disks(vm: VmSpec) -> bool:
    return any(vbd.sr for vbd in vm.vbds)


def datapath(vm: str, device: str) -> str:
    """The name under which a VBD opens its disk."""
    return f"vbd/{vm}/{device}"


def of_datapath(dp: str) -> tuple[str, str]:
    """VM (uuid) and device of a datapath. Raises DEVICE_NOT_ATTACHED for one that is no VBD's."""
    kind, _, rest = dp.partition("/")
    vm, _, device = rest.partition("/")
    if kind != "vbd" or not device:
        raise ApiError("DEVICE_NOT_ATTACHED", dp)
    return vm, device


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
