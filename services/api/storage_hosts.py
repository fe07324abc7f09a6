"""Which host does the work on an SR, and what its answers come to in rows."""

from __future__ import annotations

import uuid
from collections.abc import Container, Iterable, Sequence

from services.api import clock
from services.api.api import Api
from services.api.decisions.rows import existing
from shared.contracts import storage as contract
from shared.contracts.db import Change, Create, Delete, Precondition, RowPresent, Update
from shared.contracts.storage import SrScan, SrStat, VdiInfo
from shared.errors import ApiError
from shared.store import NULL, Store


def host_for(store: Store, sr: str, prefer: Iterable[str] = ()) -> str:
    """A live host with the SR attached: one of `prefer` if possible, else the coordinator, else any.

    Raises HANDLE_INVALID; SR_HAS_NO_PBDS [sr], when it is attached nowhere; HOST_OFFLINE.
    """
    row = existing(store, "SR", sr)
    hosts: list[str] = [
        pbd["host"] for pbd in (store.row("PBD", ref) for ref in row["PBDs"]) if pbd and pbd["currently_attached"]
    ]
    if not hosts:
        raise ApiError("SR_HAS_NO_PBDS", sr)
    live = [host for host in hosts if is_live(store, host)]
    if not live:
        raise ApiError("HOST_OFFLINE", hosts[0])
    pool = next(iter(store.rows("pool").values()), None)
    for host in (*prefer, pool["master"] if pool is not None else NULL):
        if host in live:
            return host
    return live[0]


def is_live(store: Store, host: str) -> bool:
    row = store.row("host", host)
    metrics = store.row("host_metrics", row["metrics"]) if row is not None else None
    return metrics is not None and bool(metrics["live"])


def vdi_fields(info: VdiInfo) -> dict[str, object]:
    """Of a disk as its SR describes it."""
    return {
        "uuid": info.uuid,
        "location": info.location,
        "virtual_size": info.virtual_size,
        "physical_utilisation": info.physical_utilisation,
        "read_only": info.read_only,
        "sm_config": dict(info.sm_config),
    }


def stat_change(sr: str, stat: SrStat) -> Change:
    fields = {
        "physical_size": stat.physical_size,
        "physical_utilisation": stat.physical_utilisation,
        "virtual_allocation": stat.virtual_allocation,
    }
    return Update(cls="SR", ref=sr, fields=fields)


async def rescan(api: Api, sr: str, host: str, more: Sequence[Change] = ()) -> None:
    """Asks a host (uuid) what the SR holds, and brings the rows in line, together with `more` changes."""
    async with api.disks.scan(sr) as moving:
        found = await api.bus.call(contract.SR_SCAN, contract.SrRef(sr=api.uuid_of("SR", sr)), host=host)

        def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
            return [*more, *reconciled(store, sr, found, moving)], [RowPresent(cls="SR", ref=sr)], None

        await api.database.decide(decision)


def reconciled(store: Store, sr: str, scan: SrScan, moving: Container[str] = ()) -> list[Change]:
    """What a scan found, in rows: new disks appear, known ones are updated, those that are gone disappear.

    Nothing is said about disks (uuid) that are `moving`.
    """
    known = {store.get("VDI", ref, "location"): ref for ref in store.get("SR", sr, "VDIs")}
    result: list[Change] = [stat_change(sr, scan.stat)]
    for info in scan.disks:
        ref = known.pop(info.location, None)
        if info.uuid in moving:
            continue
        if ref is None:
            fields = {
                **vdi_fields(info),
                "name_label": info.name_label,
                "name_description": info.name_description,
                "type": info.type,
                "SR": sr,
                "managed": True,
                "snapshot_time": clock.EPOCH,
            }
            result.append(Create(cls="VDI", ref=f"OpaqueRef:{uuid.uuid4()}", fields=fields))
            continue
        row = existing(store, "VDI", ref)
        now = {name: value for name, value in vdi_fields(info).items() if name != "uuid"}
        if any(row[name] != value for name, value in now.items()):
            result.append(Update(cls="VDI", ref=ref, fields=now))
    for ref in known.values():
        row = existing(store, "VDI", ref)
        if not row["current_operations"] and row["uuid"] not in moving:
            result.append(Delete(cls="VDI", ref=ref))
    return result
