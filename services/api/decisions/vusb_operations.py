"""Which operations a VUSB allows now: the rules of the original in their order, the first refusal wins."""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Rows, busy, existing
from shared.errors import ApiError

OPERATIONS: Final = ("attach", "plug", "unplug")
LEAVING: Final = frozenset({"clean_shutdown", "hard_shutdown", "suspend", "pause"})
"""Operations of the VM during which its devices stay as they are."""


def check(rows: Rows, vusb: str, op: str) -> ApiError | None:
    """Why the operation may not start now; None if it may."""
    row = rows.row("VUSB", vusb)
    if row is None:
        return ApiError("HANDLE_INVALID", "VUSB", vusb)
    for task, running in row["current_operations"].items():
        return busy("VUSB", vusb, running, task)
    if op == "attach":
        return None
    vm = existing(rows, "VM", row["VM"])
    if vm["power_state"] != "Running":
        return ApiError("VM_BAD_POWER_STATE", row["VM"], "running", vm["power_state"].lower())
    if op == "plug" and row["currently_attached"]:
        return ApiError("DEVICE_ALREADY_ATTACHED", vusb)
    if op == "unplug" and not row["currently_attached"]:
        return ApiError("DEVICE_ALREADY_DETACHED", vusb)
    for running in vm["current_operations"].values():
        if running in LEAVING:
            return ApiError("OPERATION_NOT_ALLOWED", f"Current operation on VM:{row['VM']} is {running}")
    return None


def allowed_operations(rows: Rows, vusb: str) -> list[str]:
    """What belongs into `VUSB.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    existing(rows, "VUSB", vusb)
    return [op for op in OPERATIONS if check(rows, vusb, op) is None]
