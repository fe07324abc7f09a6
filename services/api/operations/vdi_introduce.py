"""VDI messages that make, renew and remove the record of a disk and leave the disk alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions import sm_sessions, unfinished_disks, vdi_rows
from services.api.decisions.rows import existing
from services.api.operation import Lock, operation
from services.api.storage_hosts import ask, disk, host_for
from shared.contracts import storage as contract
from shared.contracts.db import Change, Create, Delete, Update
from shared.errors import ApiError
from shared.store import NULL, Store

UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


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
    sm_config: dict[str, str],
    *others: Any,
) -> str:
    """A disk that is in the SR without a row. What it is and what it is called there, the SR says."""
    host = host_for(call.store, sr)
    known = vdi_rows.disk_at(call.store, sr, location)
    if known is not None and call.store.get("VDI", known, "uuid") != uuid:
        raise ApiError("LOCATION_NOT_UNIQUE", sr, location)
    request = contract.VdiIntroduce(sr=call.api.uuid_of("SR", sr), uuid=uuid, location=location, sm_config=sm_config)
    info = await ask(call.api, host, contract.VDI_INTRODUCE, request)
    given: dict[str, Any] = {
        "type": type,
        "sharable": sharable,
        "other_config": other_config,
        "xenstore_data": xenstore_data,
    }
    given |= {name: text for name, text in _names(name_label, name_description) if text}
    ref, change = _row(call.store, sr, info, given)
    call.on_success += [change, *published(call.store, "VDI", ref, [change])]
    return ref


def _names(name_label: str, name_description: str) -> Iterator[tuple[str, str]]:
    """Empty ones leave the SR's."""
    yield "name_label", name_label
    yield "name_description", name_description


def _row(store: Store, sr: str, info: contract.VdiInfo, given: dict[str, Any]) -> tuple[str, Change]:
    """A driver may have written it by itself."""
    places = vdi_rows.places(store, sr)
    known = vdi_rows.disk_at(store, sr, info.location)
    if known is None:
        ref = new_ref()
        return ref, Create(cls="VDI", ref=ref, fields={**vdi_rows.found(sr, info, places), **given})
    said = vdi_rows.said(info, places, existing(store, "VDI", known))
    return known, Update(cls="VDI", ref=known, fields={**said, **given})


@operation("VDI.update", Lock("VDI", "update"))
async def update(call: Call, vdi: str) -> None:
    await renew(call, vdi)


async def renew(call: Call, vdi: str) -> None:
    """The row shows what the SR says of the disk now."""
    host = host_for(call.store, existing(call.store, "VDI", vdi)["SR"])
    info = await ask(call.api, host, contract.VDI_STAT, disk(call.api, vdi))
    call.on_success += vdi_rows.refreshed(call.store, vdi, info)


# ---- records alone


_RECORD: Final = (
    *("uuid", "name_label", "name_description", "SR", "type", "sharable", "read_only", "other_config", "location"),
    *("xenstore_data", "sm_config", "managed", "virtual_size", "physical_utilisation", "metadata_of_pool"),
    *("is_a_snapshot", "snapshot_time", "snapshot_of", "cbt_enabled"),
)
"""Fields, in the order of the messages' parameters."""


async def _insert(call: Call, values: tuple[Any, ...], owner: str = "") -> str:
    """`owner`: the task that a disk is made for, until that has succeeded. What is not managed is part of another."""
    fields = dict(zip(_RECORD, values, strict=True))
    if owner and fields["managed"]:
        mark = unfinished_disks.mark(owner, fields["uuid"])
        fields["other_config"] = {**fields["other_config"], unfinished_disks.MARK: mark}
    if vdi_rows.disk_at(call.store, fields["SR"], fields["location"]) is not None:
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
    return await _insert(call, values, sm_sessions.makes_for(call.store, call.session))


@operation("VDI.db_forget")
async def db_forget(call: Call, vdi: str) -> None:
    """For the SR's plug-in. CD drives with the disk become empty."""
    row = existing(call.store, "VDI", vdi)
    sm_sessions.require_own(call.store, call.session, row["SR"])
    drives = [ref for ref in row["VBDs"] if existing(call.store, "VBD", ref)["type"] == "CD"]
    emptied: list[Change] = [Update(cls="VBD", ref=ref, fields={"VDI": NULL, "empty": True}) for ref in drives]
    await call.transact([*emptied, Delete(cls="VDI", ref=vdi)])
