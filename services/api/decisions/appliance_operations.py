"""Which operations an appliance allows now, and in which order its VMs are started and stopped (vm-lifecycle 4)."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Rows, busy, existing
from shared.errors import ApiError

STATES: Final[dict[str, tuple[frozenset[str], str]]] = {
    "start": (frozenset({"Halted"}), "There are no halted VMs in this appliance."),
    "clean_shutdown": (frozenset({"Running"}), "There are no running VMs in this appliance."),
    "hard_shutdown": (frozenset({"Running", "Paused", "Suspended"}), "All VMs in this appliance are halted."),
    "shutdown": (frozenset({"Running", "Paused", "Suspended"}), "All VMs in this appliance are halted."),
}
"""Operation to the power states it acts on, and what it says when no VM has one of them."""


def _power_states(rows: Rows, appliance: str) -> dict[str, str]:
    vms = ((ref, rows.row("VM", ref)) for ref in existing(rows, "VM_appliance", appliance)["VMs"])
    return {ref: vm["power_state"] for ref, vm in vms if vm is not None}


def check(rows: Rows, appliance: str, op: str) -> ApiError | None:
    """Why the operation may not start now; None if it may."""
    row = rows.row("VM_appliance", appliance)
    if row is None:
        return ApiError("HANDLE_INVALID", "VM_appliance", appliance)
    for task, running in row["current_operations"].items():
        return busy("VM_appliance", appliance, running, task)
    power_states = _power_states(rows, appliance)
    if not power_states:
        return ApiError("OPERATION_NOT_ALLOWED", "Appliance has no VMs.")
    wanted, nothing = STATES[op]
    return None if wanted & set(power_states.values()) else ApiError("OPERATION_NOT_ALLOWED", nothing)


def allowed_operations(rows: Rows, appliance: str) -> list[str]:
    """What belongs into `VM_appliance.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    existing(rows, "VM_appliance", appliance)
    return [op for op in sorted(STATES) if check(rows, appliance, op) is None]


def groups(rows: Rows, appliance: str, op: str) -> list[list[str]]:
    """The VMs that the operation acts on, those of one `order` together: ascending to start, descending to stop."""
    wanted, _ = STATES[op]
    by_order: dict[int, list[str]] = {}
    for vm, power_state in _power_states(rows, appliance).items():
        if power_state in wanted:
            by_order.setdefault(existing(rows, "VM", vm)["order"], []).append(vm)
    return [by_order[order] for order in sorted(by_order, reverse=op != "start")]
