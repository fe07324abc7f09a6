"""Which host does the work on an SR (storage 4.1)."""

from __future__ import annotations

from collections.abc import Iterable

from services.api.decisions.liveness import is_live
from services.api.decisions.rows import NULL, Rows, existing, the_pool
from services.api.decisions.sm_features import is_v1, plugged_pbds
from services.api.decisions.vbd_operations import is_attached
from shared.errors import ApiError


def host_for(rows: Rows, sr: str, prefer: Iterable[str] = ()) -> str:
    """A live host with the SR attached: one of `prefer` if possible, else the coordinator, else any.

    Raises HANDLE_INVALID; SR_HAS_NO_PBDS [sr], when it is attached nowhere; HOST_OFFLINE.
    """
    hosts: list[str] = [pbd["host"] for pbd in plugged_pbds(rows, existing(rows, "SR", sr))]
    if not hosts:
        raise ApiError("SR_HAS_NO_PBDS", sr)
    live = [host for host in hosts if is_live(rows, host)]
    if not live:
        raise ApiError("HOST_OFFLINE", hosts[0])
    for host in (*prefer, _coordinator(rows)):
        if host in live:
            return host
    return live[0]


def host_for_disk(rows: Rows, vdi: str) -> str:
    """For work on a disk that may be open: where it is open, as only that host can change an image under its VM. A
    SMAPIv1 driver works on the SR's master alone and finds the others itself.
    """
    row = existing(rows, "VDI", vdi)
    users = () if is_v1(rows, existing(rows, "SR", row["SR"])) else open_on(rows, vdi)
    return host_for(rows, row["SR"], users)


def scanner(rows: Rows, sr: str, plugged: str) -> str | None:
    """Who finds out what an SR holds that has just been plugged on a host: that host. A SMAPIv1 driver does it on the
    master of a shared SR alone; None if that does not have the SR.
    """
    row = existing(rows, "SR", sr)
    if not (row["shared"] and is_v1(rows, row)):
        return plugged
    master = _coordinator(rows)
    return master if any(pbd["host"] == master for pbd in plugged_pbds(rows, row)) else None


def open_on(rows: Rows, vdi: str) -> list[str]:
    """Hosts whose VMs have the disk, those that write to it first."""
    vbds = [vbd for ref in existing(rows, "VDI", vdi)["VBDs"] if (vbd := rows.row("VBD", ref)) and is_attached(vbd)]
    vbds.sort(key=lambda vbd: vbd["mode"] != "RW")
    vms = [rows.row("VM", vbd["VM"]) for vbd in vbds]
    return [vm["resident_on"] for vm in vms if vm is not None and vm["resident_on"] != NULL]


def hosts_for_copy(rows: Rows, source: str, target: str) -> tuple[str, str]:
    """Live hosts that have the SR of what is read, and of what is written: one for both if there is any. Rather not the
    coordinator: it takes long.

    Raises HANDLE_INVALID; SR_HAS_NO_PBDS for the one that is attached nowhere; HOST_OFFLINE.
    """
    first = host_for(rows, source)
    host_for(rows, target)
    here, there = (
        {pbd["host"] for pbd in plugged_pbds(rows, existing(rows, "SR", sr)) if is_live(rows, pbd["host"])}
        for sr in (source, target)
    )

    def best(hosts: set[str]) -> str:
        return min(hosts, key=lambda host: (host == _coordinator(rows), host != first, host))

    both = here & there
    return (best(both), best(both)) if both else (best(here), best(there))


def check_disks_reachable(rows: Rows, vm: str) -> ApiError | None:
    """NO_HOSTS_AVAILABLE when there is no host that sees all disks of the VM: what copies them needs one."""
    drives = [existing(rows, "VBD", ref) for ref in existing(rows, "VM", vm)["VBDs"]]
    disks = [rows.row("VDI", vbd["VDI"]) for vbd in drives if not vbd["empty"]]
    srs = {disk["SR"] for disk in disks if disk is not None}
    seeing = [
        {pbd["host"] for pbd in plugged_pbds(rows, existing(rows, "SR", sr)) if is_live(rows, pbd["host"])}
        for sr in srs
    ]
    return ApiError("NO_HOSTS_AVAILABLE") if seeing and not set.intersection(*seeing) else None


def _coordinator(rows: Rows) -> str:
    pool = the_pool(rows)
    return NULL if pool is None else str(pool["master"])
