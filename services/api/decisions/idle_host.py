"""Whether a host is out of use, as what winds it down or changes its storage asks for."""

from __future__ import annotations

from services.api.decisions.rows import Rows, existing
from shared.errors import ApiError


def require_idle(rows: Rows, host: str) -> None:
    """Raises HANDLE_INVALID; HOST_NOT_DISABLED; HOST_IN_USE [host, class, ref] for a VM that is there, or a disk that
    its control domain has.
    """
    row = existing(rows, "host", host)
    if row["enabled"]:
        raise ApiError("HOST_NOT_DISABLED")
    for vm in row["resident_VMs"]:
        found = existing(rows, "VM", vm)
        if not found["is_control_domain"]:
            raise ApiError("HOST_IN_USE", host, "VM", vm)
        for vbd in found["VBDs"]:
            if existing(rows, "VBD", vbd)["currently_attached"]:
                raise ApiError("HOST_IN_USE", host, "VBD", vbd)
