"""What a network allows now (host-services 1.2). Its one operation, `attaching`, is never advertised."""

from __future__ import annotations

from services.api.decisions.rows import Rows, existing
from services.api.decisions.vbd_operations import is_attached
from shared.errors import ApiError


def check(rows: Rows, network: str, _: str) -> ApiError | None:
    """Why the operation may not start now; None if it may: any number of VIFs may be attached at once."""
    return None if rows.row("network", network) is not None else ApiError("HANDLE_INVALID", "network", network)


def allowed_operations(rows: Rows, network: str) -> list[str]:
    """`network.allowed_operations`: always empty. Raises HANDLE_INVALID."""
    existing(rows, "network", network)
    return []


def check_destroy(rows: Rows, network: str) -> ApiError | None:
    """Why the network may not go; None if it may. VIF records that are not attached go with it."""
    row = existing(rows, "network", network)
    vifs = ((ref, rows.row("VIF", ref)) for ref in row["VIFs"])
    if attached := [ref for ref, vif in vifs if vif is not None and is_attached(vif)]:
        return ApiError("NETWORK_CONTAINS_VIF", "; ".join(attached))
    if row["PIFs"]:
        return ApiError("NETWORK_CONTAINS_PIF", "; ".join(row["PIFs"]))
    if row["other_config"].get("is_host_internal_management_network") == "true":
        return ApiError("CANNOT_DESTROY_SYSTEM_NETWORK", network)
    return None
