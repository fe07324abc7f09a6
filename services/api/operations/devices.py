"""What making and destroying a VM's devices have in common."""

from __future__ import annotations

from typing import Literal

from services.api.decisions.device_metrics import removed
from services.api.decisions.rows import busy, existing
from shared.contracts.db import Change
from shared.errors import ApiError
from shared.store import Store


def refuse_while_destroyed(store: Store, vm: str) -> None:
    """A device that is added now would outlive its VM. Raises HANDLE_INVALID, OTHER_OPERATION_IN_PROGRESS."""
    for task, running in existing(store, "VM", vm)["current_operations"].items():
        if running == "destroy":
            raise busy("VM", vm, running, task)


def gone(store: Store, cls: Literal["VBD", "VIF"], ref: str) -> list[Change]:
    """Removes a VBD or VIF and its metrics. Raises HANDLE_INVALID, OPERATION_NOT_ALLOWED while it is attached,
    OTHER_OPERATION_IN_PROGRESS.
    """
    row = existing(store, cls, ref)
    if row["currently_attached"]:
        raise ApiError("OPERATION_NOT_ALLOWED", f"{cls} '{row['uuid']}' still attached to '{row['VM']}'")
    for task, running in row["current_operations"].items():
        raise busy(cls, ref, running, task)
    return removed(store, cls, ref)
