"""What a host should be in its pool, by the rows: the database says who is coordinator, a host's file follows it."""

from __future__ import annotations

from collections.abc import Container

from services.api.decisions.rows import Rows, the_pool
from shared.host_role import COORDINATOR, HostRole, member_of


def due(rows: Rows, hosts: Container[str], role: HostRole) -> HostRole | None:
    """The role that hosts (uuids) of one process should have instead of this one; None when it is right, or the rows
    do not tell.
    """
    pool = the_pool(rows)
    master = rows.row("host", pool["master"]) if pool is not None else None
    if master is None:
        return None
    if master["uuid"] in hosts:
        wanted = COORDINATOR
    elif master["address"]:
        wanted = member_of(master["address"])
    else:
        return None
    return wanted if wanted != role else None
