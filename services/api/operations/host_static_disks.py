"""Disks that a host has at all times, with or without a database: attached now and after every boot."""

from __future__ import annotations

import logging

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.decisions.vdi_types import incompatible
from services.api.on_hosts import on_host
from services.api.operation import operation
from services.api.storage_hosts import disk
from shared.contracts import storage

log = logging.getLogger("api.hosts")


@operation("host.attach_static_vdis")
async def attach_static_vdis(call: Call, host: str, vdi_reason_map: dict[str, str]) -> None:
    """All of them or none; those that it has already stay as they are."""
    for vdi in vdi_reason_map:
        if (type_ := existing(call.store, "VDI", vdi)["type"]) == "cbt_metadata":
            raise incompatible(vdi, type_)
    disks = []
    for vdi, reason in vdi_reason_map.items():
        row, place = existing(call.store, "VDI", vdi), disk(call.api, vdi)
        log.info("host %s gets the disk %s at every boot, for %s", host, row["uuid"], reason)
        disks.append(
            storage.DiskOpen(
                dp=_datapath(row["uuid"]), sr=place.sr, location=place.location, writable=not row["read_only"]
            )
        )
    if disks:
        await on_host(call, host, storage.OPEN, storage.Open(disks=disks))


@operation("host.detach_static_vdis")
async def detach_static_vdis(call: Call, host: str, vdis: list[str]) -> None:
    """Those that it does not have are fine."""
    dps = [_datapath(existing(call.store, "VDI", vdi)["uuid"]) for vdi in vdis]
    await on_host(call, host, storage.CLOSE, storage.Close(dps=dps))


def _datapath(uuid: str) -> str:
    return f"{storage.STATIC_DATAPATHS}{uuid}"
