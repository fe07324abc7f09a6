"""VDI messages that make, renew and remove the record of a disk and leave the disk alone."""

from __future__ import annotations

import re
from typing import Any, Final

from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions import sm_sessions
from services.api.decisions.rows import existing
from services.api.operation import Lock, operation
from services.api.storage_hosts import host_for, vdi_fields
from shared.contracts import storage as contract
from shared.contracts.db import Change, Create, Delete, Update
from shared.errors import ApiError
from shared.store import NULL, Store

UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _same_place(store: Store, sr: str, location: str) -> str | None:
    """The SR's disk there."""
    vdis: list[str] = existing(store, "SR", sr)["VDIs"]
    return next((ref for ref in vdis if existing(store, "VDI", ref)["location"] == location), None)


async def _found(call: Call, sr: str, location: str) -> contract.VdiInfo:
    """The disk as its SR sees it now. Raises VDI_MISSING."""
    uuid = call.api.uuid_of("SR", sr)
    host = call.api.uuid_of("host", host_for(call.store, sr))
    scan = await call.api.bus.call(contract.SR_SCAN, contract.SrRef(sr=uuid), host=host)
    for info in scan.disks:
        if info.location == location:
            return info
    raise ApiError("VDI_MISSING", sr, location)


@operation("VDI.introduce", Lock("SR", "vdi_introduce", argument=3))
async def introduce(
    call: Call,
    uuid: str,
    name_label: str,
    name_description: str,
    sr: str,
    type: str,
    sharable: bool,
    read_only: bool,
    other_config: dict[str, str],
    location: str,
    xenstore_data: dict[str, str],
    *others: Any,
) -> str:
    """A disk of the SR that was forgotten. What the SR knows is what it says, whatever the caller gave."""
    known = _same_place(call.store, sr, location)
    if known is not None and call.store.get("VDI", known, "uuid") != uuid:
        raise ApiError("LOCATION_NOT_UNIQUE", sr, location)
    info = await _found(call, sr, location)
    if uuid not in ("", info.uuid):
        raise ApiError("INVALID_VALUE", "uuid", uuid)
    fields = {
        **vdi_fields(info),
        "name_label": name_label or info.name_label,
        "name_description": name_description or info.name_description,
        "type": type,
        "sharable": sharable,
        "other_config": other_config,
        "xenstore_data": xenstore_data,
    }
    ref = known or new_ref()
    new: Change = Create(cls="VDI", ref=ref, fields={**fields, "SR": sr, "managed": True})
    changes = [Update(cls="VDI", ref=ref, fields=fields) if known else new]
    call.on_success += [*changes, *published(call.store, "VDI", ref, changes)]
    return ref


@operation("VDI.update", Lock("VDI", "update"))
async def update(call: Call, vdi: str) -> None:
    row = existing(call.store, "VDI", vdi)
    info = await _found(call, row["SR"], row["location"])
    fields = {name: value for name, value in vdi_fields(info).items() if name != "uuid"}
    call.on_success.append(Update(cls="VDI", ref=vdi, fields=fields))


# ---- records alone


_RECORD: Final = (
    *("uuid", "name_label", "name_description", "SR", "type", "sharable", "read_only", "other_config", "location"),
    *("xenstore_data", "sm_config", "managed", "virtual_size", "physical_utilisation", "metadata_of_pool"),
    *("is_a_snapshot", "snapshot_time", "snapshot_of", "cbt_enabled"),
)
"""Fields, in the order of the messages' parameters."""


async def _insert(call: Call, values: tuple[Any, ...]) -> str:
    fields = dict(zip(_RECORD, values, strict=True))
    if _same_place(call.store, fields["SR"], fields["location"]) is not None:
        raise ApiError("LOCATION_NOT_UNIQUE", fields["SR"], fields["location"])
    if UUID.fullmatch(fields["uuid"]) is None:
        raise ApiError("UUID_INVALID", "VDI", fields["uuid"])
    ref = new_ref()
    changes: list[Change] = [Create(cls="VDI", ref=ref, fields=fields)]
    await call.transact([*changes, *published(call.store, "VDI", ref, changes)])
    return ref


@operation("VDI.pool_introduce")
async def pool_introduce(call: Call, *values: Any) -> str:
    return await _insert(call, values)


@operation("VDI.db_introduce")
async def db_introduce(call: Call, *values: Any) -> str:
    """For the SR's plug-in."""
    sm_sessions.require_own(call.store, call.session, values[_RECORD.index("SR")])
    return await _insert(call, values)


@operation("VDI.db_forget")
async def db_forget(call: Call, vdi: str) -> None:
    """For the SR's plug-in. CD drives with the disk become empty."""
    row = existing(call.store, "VDI", vdi)
    sm_sessions.require_own(call.store, call.session, row["SR"])
    drives = [ref for ref in row["VBDs"] if existing(call.store, "VBD", ref)["type"] == "CD"]
    emptied: list[Change] = [Update(cls="VBD", ref=ref, fields={"VDI": NULL, "empty": True}) for ref in drives]
    await call.transact([*emptied, Delete(cls="VDI", ref=vdi)])
