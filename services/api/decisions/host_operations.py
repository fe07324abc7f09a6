"""Which operations a host allows now (host-services 3.3), and what enabling or restarting it asks for (3.2).

Not decided here yet: mandatory guidance, degraded clustered SRs.
"""

from __future__ import annotations

from typing import Final

from services.api.decisions.rows import Record, Rows, busy, existing
from shared.errors import ApiError

OPERATIONS: Final = (
    "apply_updates",
    "enable",
    "evacuate",
    "power_on",
    "provision",
    "reboot",
    "shutdown",
    "vm_migrate",
    "vm_resume",
    "vm_start",
)

_VM_ARRIVALS: Final = frozenset({"provision", "vm_resume", "vm_migrate"})
_DEPARTURE: Final = frozenset({"evacuate", "reboot", "shutdown"})
_RESTARTS: Final = frozenset({"reboot", "shutdown", "apply_updates"})

CONFLICTS: Final[dict[str, frozenset[str]]] = {
    "provision": _DEPARTURE | {"provision"},
    "vm_resume": _DEPARTURE,
    "vm_migrate": _DEPARTURE,
    "vm_start": frozenset(),  # placement asks whether the host is being evacuated
    "evacuate": _VM_ARRIVALS,
    "reboot": _VM_ARRIVALS | _RESTARTS,
    "shutdown": _VM_ARRIVALS | _RESTARTS,
    "apply_updates": _RESTARTS,
    "enable": frozenset({"apply_updates"}),
    "power_on": frozenset(),
}
"""Operations in progress that keep another from starting."""

NEEDS_DISABLED: Final = _RESTARTS


def is_live(rows: Rows, host: Record) -> bool:
    """As the coordinator last recorded it in `host_metrics.live`."""
    metrics = rows.row("host_metrics", host["metrics"])
    return metrics is not None and bool(metrics["live"])


def check(rows: Rows, host: str, op: str) -> ApiError | None:
    """Why the operation may not start now; None if it may."""
    row = rows.row("host", host)
    if row is None:
        return ApiError("HANDLE_INVALID", "host", host)
    for task, running in row["current_operations"].items():
        if running in CONFLICTS[op]:
            return busy("host", host, running, task)
    if op in NEEDS_DISABLED and row["enabled"]:
        return ApiError("HOST_NOT_DISABLED")
    if op == "power_on":
        if is_live(rows, row):
            return ApiError("HOST_IS_LIVE", host)
        if not row["power_on_mode"]:
            return ApiError("HOST_POWER_ON_MODE_DISABLED")
    return None


def allowed_operations(rows: Rows, host: str) -> list[str]:
    """What belongs into `host.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    existing(rows, "host", host)
    return [op for op in OPERATIONS if check(rows, host, op) is None]
