"""Which VMs cannot leave a host, and why (host-services 3.2)."""

from __future__ import annotations

from services.api.decisions.liveness import is_live
from services.api.decisions.rows import Rows, existing
from shared.errors import ApiError


def obstacles(rows: Rows, host: str) -> dict[str, ApiError]:
    """VM to the reason. Raises HANDLE_INVALID.

    Moving running VMs is not built yet: where another host could take them, that is the reason.
    """
    others = [ref for ref, row in rows.rows("host").items() if ref != host and row["enabled"] and is_live(rows, ref)]
    found: dict[str, ApiError] = {}
    for ref in existing(rows, "host", host)["resident_VMs"]:
        vm = existing(rows, "VM", ref)
        if not vm["is_control_domain"]:
            found[ref] = ApiError("NOT_IMPLEMENTED", "VM.pool_migrate") if others else _nowhere(ref)
    return found


def _nowhere(vm: str) -> ApiError:
    return ApiError("NO_HOSTS_AVAILABLE", vm)
