"""Whether the hosts' bridges are Open vSwitch's, which PVS proxies, SDN controllers and tunnels need."""

from __future__ import annotations

from services.api.decisions.rows import Rows, the_pool
from shared.errors import ApiError


def is_used(rows: Rows) -> bool:
    """By the coordinator; the hosts of a pool are alike."""
    pool = the_pool(rows)
    host = rows.row("host", pool["master"]) if pool is not None else None
    return host is not None and host["software_version"].get("network_backend") == "openvswitch"


def require(rows: Rows) -> None:
    """Raises OPENVSWITCH_NOT_ACTIVE."""
    if not is_used(rows):
        raise ApiError("OPENVSWITCH_NOT_ACTIVE")
