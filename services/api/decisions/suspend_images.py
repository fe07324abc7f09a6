"""Where the memory of a suspended VM goes (vm-lifecycle 1.6)."""

from __future__ import annotations

from services.api.decisions.rows import Rows, existing, is_null, the_pool
from shared.errors import ApiError


def sr_for(rows: Rows, vm: str) -> str:
    """The VM's own suspend SR, else the pool's, else its host's: the first that is attached there.

    Raises HANDLE_INVALID, VM_NO_SUSPEND_SR [vm].
    """
    row, pool = existing(rows, "VM", vm), the_pool(rows)
    host = rows.row("host", row["resident_on"])
    wanted = (
        row["suspend_SR"],
        pool["suspend_image_SR"] if pool is not None else "",
        host["suspend_image_sr"] if host is not None else "",
    )
    attached = _attached(rows, row["resident_on"])
    for sr in wanted:
        if not is_null(sr) and sr in attached:
            return str(sr)
    raise ApiError("VM_NO_SUSPEND_SR", vm)


def _attached(rows: Rows, host: str) -> set[str]:
    row = rows.row("host", host)
    pbds = (rows.row("PBD", ref) for ref in (row["PBDs"] if row is not None else ()))
    return {pbd["SR"] for pbd in pbds if pbd is not None and pbd["currently_attached"]}
