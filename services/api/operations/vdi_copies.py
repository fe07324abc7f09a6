"""VDI messages that make a disk from another: clone, snapshot, copy (storage 4.5).

Clones and snapshots share data with their source and stay in its SR. A copy is read and written block by block, on a
host that sees both SRs; what an SR cannot clone is copied, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from services.api import clock, locking
from services.api.call import Call
from services.api.decisions import unfinished_disks
from services.api.decisions.rows import NULL, Record, Rows, existing, is_null
from services.api.decisions.sm_features import is_v1
from services.api.decisions.sr_hosts import host_for, host_for_disk, hosts_for_copy
from services.api.new_disk import NewDisk
from services.api.operation import Lock, operation
from services.api.operations.vdi import make_disk
from services.api.storage_hosts import ask
from shared.contracts import storage as contract
from shared.contracts.db import MapDrop, MapPut, Update
from shared.contracts.motion import RECEIVE_END, ReceiveEnd
from shared.contracts.transfer import COPY, Copy
from shared.errors import ApiError

log = logging.getLogger("api.vdi")

KEPT: Final = (
    *("name_label", "name_description", "type", "sharable", "other_config", "xenstore_data"),
    *("tags", "on_boot", "allow_caching"),
)
"""What a clone or a snapshot has from its source."""

UNIMPLEMENTED: Final = "UNIMPLEMENTED_IN_SM_BACKEND"


# ---- in the same SR, sharing data


@operation("VDI.clone", Lock("VDI", "clone", sr="vdi_clone"))
async def clone(call: Call, vdi: str, driver_params: dict[str, str]) -> str:
    return await _clone(call, vdi, driver_params)


@operation("VDI.snapshot", Lock("VDI", "snapshot", sr="vdi_snapshot"))
async def snapshot(call: Call, vdi: str, driver_params: dict[str, str]) -> str:
    return await _branch(call, vdi, driver_params, snapshot=True)


async def clone_disk(call: Call, vdi: str) -> str:
    """A clone for a message about something else, such as a VM; it goes again if that fails."""
    await locking.mark(call, ("VDI", vdi, "clone"), _sr_of(call.store, vdi, "vdi_clone"))
    return await _clone(call, vdi, {})


async def snapshot_disk(call: Call, vdi: str) -> str:
    """The same, a snapshot."""
    await locking.mark(call, ("VDI", vdi, "snapshot"), _sr_of(call.store, vdi, "vdi_snapshot"))
    return await _branch(call, vdi, {}, snapshot=True)


def _sr_of(rows: Rows, vdi: str, op: str) -> tuple[str, str, str]:
    return "SR", existing(rows, "VDI", vdi)["SR"], op


async def _clone(call: Call, vdi: str, driver_params: dict[str, str]) -> str:
    row = existing(call.store, "VDI", vdi)
    try:
        return await _branch(call, vdi, driver_params)
    except ApiError as error:
        if error.code != UNIMPLEMENTED:
            raise
    log.info("SR %s does not clone: disk %s is copied", row["SR"], row["uuid"])
    made = await blank_disk(call, row, row["SR"], read_only=row["read_only"])
    # A copy takes long, and has the source open: nobody else need wait for it.
    await locking.unmark(call, ("VDI", vdi), ("SR", row["SR"]))
    await write_content(call, vdi, made)
    return made


async def _branch(call: Call, vdi: str, driver_params: Mapping[str, str], *, snapshot: bool = False) -> str:
    row = existing(call.store, "VDI", vdi)
    new = NewDisk(call, row["SR"])
    request = contract.VdiClone(
        sr=new.sr_uuid,
        location=row["location"],
        uuid=new.uuid,
        snapshot=snapshot,
        name_label=row["name_label"],
        driver_params=dict(driver_params),
    )
    info = await new.make(contract.VDI_CLONE, request, host_for_disk(call.store, vdi))
    family = {"is_a_snapshot": snapshot, "snapshot_of": vdi if snapshot else NULL}
    return await new.keep(
        {**{field: row[field] for field in KEPT}, **family, "snapshot_time": info.snapshot_time or clock.now()}
    )


# ---- anywhere, with data of its own


@operation("VDI.copy", Lock("VDI", "copy"))
async def copy(call: Call, vdi: str, sr: str, base_vdi: str, into_vdi: str) -> str:
    """`into_vdi`: an existing disk gets the content, `sr` does not matter then. `base_vdi`: only what differs from that
    disk is written.
    """
    base = base_vdi if call.store.row("VDI", base_vdi) is not None else NULL
    if call.store.row("VDI", into_vdi) is None:
        return await _copied(call, vdi, sr, base)
    target = existing(call.store, "VDI", into_vdi)
    _refuse_target(existing(call.store, "VDI", vdi), into_vdi, target)
    await write_content(call, vdi, into_vdi, base, zeroed=False)
    return into_vdi


async def copy_disk(call: Call, vdi: str, sr: str = NULL) -> str:
    """A copy for a message about something else, in the disk's own SR unless another is named."""
    await locking.mark(call, ("VDI", vdi, "copy"))
    return await _copied(call, vdi, existing(call.store, "VDI", vdi)["SR"] if is_null(sr) else sr)


async def _copied(call: Call, vdi: str, sr: str, base: str = NULL) -> str:
    """Not in it: what the SR keeps for itself (`sm_config`)."""
    row = existing(call.store, "VDI", vdi)
    if sr == row["SR"] and base == NULL:
        try:
            return await _copied_by_plugin(call, row)
        except ApiError as error:
            if error.code != UNIMPLEMENTED:
                raise
    made = await blank_disk(call, row, sr, read_only=False)
    _refuse_target(row, made, existing(call.store, "VDI", made))
    await write_content(call, vdi, made, base)
    return made


async def _copied_by_plugin(call: Call, row: Record) -> str:
    """An SR may know its own disks better than who reads them all. It is free for others while this lasts."""
    await locking.mark(call, ("SR", row["SR"], "vdi_create"))
    # not visibly at work in it, but if this process is killed meanwhile, the disk is looked for
    journal = {"cls": "SR", "ref": row["SR"], "field": "other_config", "key": f"{unfinished_disks.LOST}{call.task}"}
    call.ending.append(MapDrop(**journal))
    await locking.unmark(call, ("SR", row["SR"]), more=[MapPut(**journal, value="")])
    new = NewDisk(call, row["SR"])
    request = contract.VdiClone(sr=new.sr_uuid, location=row["location"], uuid=new.uuid, name_label=row["name_label"])
    await new.make(contract.VDI_COPY, request)
    return await new.keep({field: row[field] for field in KEPT})


async def blank_disk(
    call: Call, row: Record, sr: str, *, read_only: bool, sm_config: Mapping[str, str] | None = None, uuid: str = ""
) -> str:
    """A disk like it, without content. `uuid`: as in `make_disk`."""
    record = {field: row[field] for field in KEPT if field not in ("on_boot", "allow_caching")}
    record |= {
        "SR": sr,
        "virtual_size": row["virtual_size"],
        "read_only": read_only,
        "sm_config": dict(sm_config or {}),
    }
    made = await make_disk(call, record, uuid)
    caching = {"allow_caching": row["allow_caching"], "on_boot": row["on_boot"]}
    await call.transact([Update(cls="VDI", ref=made, fields=caching)])
    await locking.unmark(call, ("SR", sr))
    return made


def _refuse_target(source: Record, ref: str, target: Record) -> None:
    if target["read_only"]:
        raise ApiError("VDI_READONLY", ref)
    if target["virtual_size"] < source["virtual_size"]:
        raise ApiError("VDI_TOO_SMALL", ref, source["virtual_size"])


async def write_content(call: Call, vdi: str, made: str, base: str = NULL, *, zeroed: bool = True) -> None:
    """`zeroed`: nobody has written to the target yet, so what is empty in the source need not be written."""
    rows = call.store
    source, target = existing(rows, "VDI", vdi), existing(rows, "VDI", made)
    blank = starts_blank(rows, existing(rows, "SR", target["SR"]), target)
    if base != NULL and not blank:
        raise ApiError("VDI_NOT_SPARSE", made)
    same = source["SR"] == target["SR"]
    here, there = (host_for(rows, source["SR"]),) * 2 if same else hosts_for_copy(rows, source["SR"], target["SR"])
    request = Copy(
        dp=copy_datapath(target["uuid"]),
        sr=call.api.uuid_of("SR", source["SR"]),
        location=source["location"],
        to_sr=call.api.uuid_of("SR", target["SR"]),
        to_location=target["location"],
        base=existing(rows, "VDI", base)["location"] if base != NULL else "",
        zeroed=zeroed and blank,
        to_host="" if here == there else call.api.uuid_of("host", there),
    )

    async def release() -> None:
        """The host that read may be silent, and the other one waits for it."""
        await ask(call.api, there, RECEIVE_END, ReceiveEnd(dp=target_datapath(target["uuid"])))

    steps = [release] if here != there else []
    call.undo += steps
    await ask(call.api, here, COPY, request)
    for step in steps:
        call.undo.remove(step)


def target_datapath(uuid: str) -> str:
    """By which a copy has the disk with that uuid open on another host."""
    return f"{copy_datapath(uuid)}/far"


def copy_datapath(uuid: str) -> str:
    """Of a copy into the disk with that uuid."""
    return f"copy/{uuid}"


THICK: Final = frozenset({"lvm", "lvmoiscsi", "lvmohba"})
"""Types whose SMAPIv1 drivers do not clear new volumes; the bundled type of that name does."""


def starts_blank(rows: Rows, sr: Record, disk: Record) -> bool:
    """Whether a new disk of that kind reads as zeros: raw volumes hold what was there before."""
    raw = disk["sm_config"].get("type") == "raw" or sr["sm_config"].get("use_vhd") != "true"
    return not (sr["type"] in THICK and raw and is_v1(rows, sr))
