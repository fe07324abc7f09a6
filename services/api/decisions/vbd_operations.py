"""Which operations a VBD allows now, and whether its disk may be shared the way it wants.

The rules in their order, the first refusal wins (vm-lifecycle 4, storage 4.6). Some are asserted when an operation
starts but not reflected in `allowed_operations`: the disk may be free again by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from services.api.decisions.rows import Record, Rows, busy, existing
from services.api.decisions.vm_operations import bad_power_state, drivers_known
from shared.errors import ApiError

OPERATIONS: Final = ("attach", "eject", "unplug", "unplug_force", "insert", "plug", "pause", "unpause")
UNPLUGS: Final = frozenset({"unplug", "unplug_force"})
HOTPLUGS: Final = UNPLUGS | {"plug"}
MEDIA_CHANGES: Final = frozenset({"insert", "eject"})
PAUSES: Final = frozenset({"pause", "unpause"})
OPENS: Final = frozenset({"attach", "plug", "insert"})
"""Operations after which the disk is in use."""

VM_GOING_DOWN: Final = frozenset({"clean_shutdown", "hard_shutdown", "suspend", "pause"})
"""Operations of the VM that forbid hot plug meanwhile."""

DISK_BUSY_BUT_USABLE: Final = frozenset({"mirror", "copy"})
"""Operations of a VDI during which it may be opened."""


class VbdFacts:
    """One VBD, its VM and its disk, read at most once for all operations. `vdi`: the disk to insert, else the VBD's."""

    def __init__(self, rows: Rows, ref: str, vbd: Record, vdi: str | None) -> None:
        self.rows = rows
        self.ref = ref
        self.vbd = vbd
        self.vm_ref: str = vbd["VM"]
        self.vm = existing(rows, "VM", self.vm_ref)
        self.vdi_ref: str = vdi if vdi is not None else vbd["VDI"]
        self.vdi = existing(rows, "VDI", vdi) if vdi is not None else rows.row("VDI", self.vdi_ref)
        self.is_new_disk = vdi is not None
        self.is_attached: bool = is_attached(vbd)
        self.power_state: str = self.vm["power_state"]

    @cached_property
    def is_hvm(self) -> bool:
        return booted_domain_type(self.rows, self.vm) == "hvm"

    @cached_property
    def guest_metrics(self) -> Record | None:
        return self.rows.row("VM_guest_metrics", self.vm["guest_metrics"])


def is_attached(device: Record) -> bool:
    """A VBD or VIF that its VM holds, or is about to."""
    return bool(device["currently_attached"] or device.get("reserved", False))


def booted_domain_type(rows: Rows, vm: Record) -> str:
    metrics = rows.row("VM_metrics", vm["metrics"])
    return "unspecified" if metrics is None else metrics["current_domain_type"]


def _busy(facts: VbdFacts, _: str) -> ApiError | None:
    for task, running in facts.vbd["current_operations"].items():
        return busy("VBD", facts.ref, running, task)
    return None


def _busy_for_pause(facts: VbdFacts, op: str) -> ApiError | None:
    """Pauses bear one another, an `unpause` a reboot's `attach` as well."""
    borne = PAUSES if op == "pause" else PAUSES | {"attach"}
    for task, running in facts.vbd["current_operations"].items():
        if running not in borne:
            return busy("VBD", facts.ref, running, task)
    return None


def _not_unpluggable(facts: VbdFacts, _: str) -> ApiError | None:
    return None if facts.vbd["unpluggable"] else ApiError("VBD_NOT_UNPLUGGABLE", facts.ref)


def _not_removable(facts: VbdFacts, _: str) -> ApiError | None:
    return None if facts.vbd["type"] == "CD" else ApiError("VBD_NOT_REMOVABLE_MEDIA", facts.ref)


def _wrong_fill(facts: VbdFacts, op: str) -> ApiError | None:
    if facts.vbd["empty"]:
        return ApiError("VBD_IS_EMPTY", facts.ref) if op == "eject" else None
    return ApiError("VBD_NOT_EMPTY", facts.ref) if op == "insert" else None


def _already(facts: VbdFacts, op: str) -> ApiError | None:
    return already_so(facts.ref, op, facts.is_attached) if facts.power_state == "Running" else None


def already_so(device: str, op: str, attached: bool) -> ApiError | None:
    """DEVICE_ALREADY_ATTACHED for a plug, DEVICE_ALREADY_DETACHED for an unplug; of a VBD or a VIF."""
    if op == "plug":
        return ApiError("DEVICE_ALREADY_ATTACHED", device) if attached else None
    return None if attached else ApiError("DEVICE_ALREADY_DETACHED", device)


def _not_running(facts: VbdFacts, op: str) -> ApiError | None:
    if facts.power_state == "Running" or (op in PAUSES and facts.power_state == "Paused"):
        return None
    return bad_power_state(facts.vm_ref, ("Running",), facts.power_state)


def _vm_going_down(facts: VbdFacts, _: str) -> ApiError | None:
    return vm_going_down(facts.vm)


def vm_going_down(vm: Record) -> ApiError | None:
    """OPERATION_NOT_ALLOWED when an operation of the VM runs that forbids hot plug."""
    for running in vm["current_operations"].values():
        if running in VM_GOING_DOWN:
            return ApiError("OPERATION_NOT_ALLOWED", f"not while the VM has the operation {running} in progress")
    return None


def _no_hotplug(facts: VbdFacts, _: str) -> ApiError | None:
    if facts.power_state != "Running" or not facts.is_hvm:
        return None
    return no_hotplug(facts.vm_ref, facts.guest_metrics, "can_use_hotplug_vbd")


def no_hotplug(vm: str, guest_metrics: Record | None, field: str) -> ApiError | None:
    """What the guest of a running HVM domain says about hot plug: in `field`, else by having drivers."""
    ability = "unspecified" if guest_metrics is None else guest_metrics[field]
    if ability == "no":
        return ApiError("OPERATION_NOT_ALLOWED", "the guest does not support hot plug of this device")
    if ability == "unspecified" and (guest_metrics is None or not drivers_known(guest_metrics)):
        return ApiError("VM_MISSING_PV_DRIVERS", vm)
    return None


def _cd_of_hvm(facts: VbdFacts, _: str) -> ApiError | None:
    if facts.power_state == "Running" and facts.is_hvm and facts.vbd["type"] == "CD":
        return ApiError("OPERATION_NOT_ALLOWED", "a CD drive of an HVM domain is there as long as the domain")
    return None


def _suspended(facts: VbdFacts, _: str) -> ApiError | None:
    if facts.power_state != "Suspended":
        return None
    return bad_power_state(facts.vm_ref, ("Halted", "Running"), facts.power_state)


def _unmanaged(facts: VbdFacts, _: str) -> ApiError | None:
    if facts.vdi is None or facts.vdi["managed"]:
        return None
    return ApiError("VDI_NOT_MANAGED", facts.vdi_ref if facts.is_new_disk else facts.ref)


def _disk_busy(facts: VbdFacts, _: str) -> ApiError | None:
    if facts.vdi is not None:
        for task, running in facts.vdi["current_operations"].items():
            if running not in DISK_BUSY_BUT_USABLE:
                return busy("VDI", facts.vdi_ref, running, task)
    return None


def _shared_wrongly(facts: VbdFacts, op: str) -> ApiError | None:
    if facts.vdi is None or facts.vdi["sharable"] or facts.vbd["currently_attached"] or is_system_domain(facts.vm):
        return None
    wants_to_write = op != "insert" and facts.vbd["mode"] == "RW"
    for ref in facts.vdi["VBDs"]:
        other = facts.rows.row("VBD", ref)
        if ref == facts.ref or other is None or not _holds(facts.rows, other):
            continue
        if wants_to_write or other["mode"] == "RW":
            return ApiError("VDI_IN_USE", facts.vdi_ref)
    return None


def _holds(rows: Rows, vbd: Record) -> bool:
    """Whether a VBD keeps others off its disk: those of suspended VMs and of system domains do not."""
    if not (is_attached(vbd) or vbd["current_operations"]):
        return False
    vm = rows.row("VM", vbd["VM"])
    return vm is not None and vm["power_state"] != "Suspended" and not is_system_domain(vm)


def is_system_domain(vm: Record) -> bool:
    """It works for the pool itself, and is trusted to share disks."""
    return bool(vm["is_control_domain"])


def _disk_read_only(facts: VbdFacts, op: str) -> ApiError | None:
    if facts.vdi is None or not facts.vdi["read_only"] or op == "insert" or facts.vbd["mode"] == "RO":
        return None
    return ApiError("VDI_READONLY", facts.vdi_ref)


def _hvm_disk_read_only(facts: VbdFacts, _: str) -> ApiError | None:
    if facts.is_hvm and facts.vbd["mode"] == "RO" and facts.vbd["type"] != "CD":
        return ApiError("DISK_VBD_MUST_BE_READWRITE_FOR_HVM", facts.ref)
    return None


@dataclass(frozen=True, slots=True)
class Rule:
    """`asserted`: only when the operation starts, not for `allowed_operations`."""

    question: Callable[[VbdFacts, str], ApiError | None]
    operations: frozenset[str]
    asserted: bool = False


RULES: Final = (
    Rule(_busy, frozenset(OPERATIONS) - PAUSES),
    Rule(_busy_for_pause, PAUSES),
    Rule(_not_unpluggable, UNPLUGS),
    Rule(_not_removable, MEDIA_CHANGES),
    Rule(_wrong_fill, MEDIA_CHANGES),
    Rule(_already, HOTPLUGS),
    Rule(_not_running, HOTPLUGS | PAUSES),
    Rule(_vm_going_down, HOTPLUGS),
    Rule(_no_hotplug, HOTPLUGS),
    Rule(_cd_of_hvm, HOTPLUGS),
    Rule(_suspended, MEDIA_CHANGES),
    Rule(_unmanaged, frozenset(OPERATIONS)),
    Rule(_disk_busy, OPENS),
    Rule(_shared_wrongly, OPENS, asserted=True),
    Rule(_disk_read_only, OPENS, asserted=True),
    Rule(_hvm_disk_read_only, frozenset({"plug"}), asserted=True),
)


def _refusal(facts: VbdFacts, op: str, asserting: bool) -> ApiError | None:
    for rule in RULES:
        if op not in rule.operations or (rule.asserted and not asserting):
            continue
        if (error := rule.question(facts, op)) is not None:
            return error
    return None


def check(rows: Rows, vbd: str, op: str, *, vdi: str | None = None, asserting: bool = True) -> ApiError | None:
    """Why the operation may not start now; None if it may. `vdi`: the disk that `insert` is to put in.

    `asserting` false asks only what `allowed_operations` reflects. Raises HANDLE_INVALID for the VM or `vdi`.
    """
    row = rows.row("VBD", vbd)
    if row is None:
        return ApiError("HANDLE_INVALID", "VBD", vbd)
    return _refusal(VbdFacts(rows, vbd, row, vdi), op, asserting)


def allowed_operations(rows: Rows, vbd: str) -> list[str]:
    """What belongs into `VBD.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    facts = VbdFacts(rows, vbd, existing(rows, "VBD", vbd), None)
    return sorted(op for op in OPERATIONS if _refusal(facts, op, asserting=False) is None)
