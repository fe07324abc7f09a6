"""Which operations a VIF allows now: like a VBD's, for a network (vm-lifecycle 4)."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Record, Rows, busy, existing
from services.api.decisions.vbd_operations import (
    already_so,
    booted_domain_type,
    is_attached,
    no_hotplug,
    vm_going_down,
)
from services.api.decisions.vm_operations import bad_power_state
from shared.errors import ApiError

OPERATIONS: Final = ("attach", "plug", "unplug")


def _on_sriov(rows: Rows, network: str) -> bool:
    """SR-IOV networks hand physical functions to guests: nothing to plug later."""
    row = rows.row("network", network)
    pifs = (rows.row("PIF", ref) for ref in (row["PIFs"] if row is not None else ()))
    return any(pif is not None and pif["sriov_logical_PIF_of"] for pif in pifs)


def _hotplug(rows: Rows, ref: str, vif: Record, op: str) -> ApiError | None:
    vm_ref: str = vif["VM"]
    vm = existing(rows, "VM", vm_ref)
    if vm["power_state"] != "Running":
        return bad_power_state(vm_ref, ("Running",), vm["power_state"])
    if error := already_so(ref, op, is_attached(vif)):
        return error
    if error := vm_going_down(vm):
        return error
    if vm["is_control_domain"]:
        return ApiError("OPERATION_NOT_ALLOWED", "a control domain's VIFs are not plugged and unplugged")
    if _on_sriov(rows, vif["network"]):
        return ApiError("OPERATION_NOT_ALLOWED", "a VIF on an SR-IOV network is not plugged and unplugged")
    if booted_domain_type(rows, vm) == "hvm":
        return no_hotplug(vm_ref, rows.row("VM_guest_metrics", vm["guest_metrics"]), "can_use_hotplug_vif")
    return None


def check(rows: Rows, vif: str, op: str) -> ApiError | None:
    """Why the operation may not start now; None if it may. `unplug_force` is checked as `unplug`."""
    row = rows.row("VIF", vif)
    if row is None:
        return ApiError("HANDLE_INVALID", "VIF", vif)
    for task, running in row["current_operations"].items():
        return busy("VIF", vif, running, task)
    return None if op == "attach" else _hotplug(rows, vif, row, op)


def allowed_operations(rows: Rows, vif: str) -> list[str]:
    """What belongs into `VIF.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    existing(rows, "VIF", vif)
    return [op for op in OPERATIONS if check(rows, vif, op) is None]
