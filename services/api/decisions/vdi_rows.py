"""What an SR says of its disks, in rows (storage 4.3).

A plug-in need not keep all that rows know: an empty text and a plain no to `sharable` and `is_a_snapshot` say nothing,
so such fields stay as they are. `managed`, `other_config`, `sm_config` and `on_boot` are never overwritten.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Container, Mapping
from typing import Any, Final

from services.api.decisions.rows import NULL, Rows, existing
from shared.contracts.db import Change, Create, Delete, MapDrop, Update
from shared.contracts.storage import SrScan, SrStat, VdiInfo
from shared.datamodel import model
from shared.datamodel.types import EnumType

EPOCH: Final = "19700101T00:00:00Z"
USER: Final = "user"
_TYPE: Final = model.classes["VDI"].fields["type"].type
TYPES: Final = frozenset(_TYPE.values if isinstance(_TYPE, EnumType) else ())
DIRTY: Final = "dirty"
"""Key of an SR's `other_config`: a driver wants it to be scanned."""


def disk_at(rows: Rows, sr: str, location: str) -> str | None:
    """The SR's disk there. Raises HANDLE_INVALID for the SR."""
    for ref in existing(rows, "SR", sr)["VDIs"]:
        row = rows.row("VDI", ref)
        if row is not None and row["location"] == location:
            return str(ref)
    return None


def said(info: VdiInfo, places: Mapping[str, str], row: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fields of the disk's row, as far as its SR says them. `places`: locations and uuids to references of the disks
    that it may be a snapshot of. `row`: as it is now.
    """
    fields: dict[str, Any] = {
        "read_only": info.read_only,
        "virtual_size": info.virtual_size,
        "physical_utilisation": info.physical_utilisation,
        "cbt_enabled": info.cbt_enabled,
        "is_tools_iso": info.sm_config.get("xs-tools") == "true",
    }
    texts = {
        "name_label": info.name_label,
        "name_description": info.name_description,
        "metadata_of_pool": info.metadata_of_pool,
        "snapshot_time": info.snapshot_time,
    }
    fields |= {name: value for name, value in texts.items() if value}
    if row is None or "data_destroy" not in row["current_operations"].values():  # which has set it for a while
        fields["type"] = info.type if info.type in TYPES else USER
    if info.sharable:
        fields["sharable"] = True
    if info.is_a_snapshot:
        fields["is_a_snapshot"] = True
    if info.snapshot_of:
        fields["snapshot_of"] = places.get(info.snapshot_of, NULL)
    return fields


def found(sr: str, info: VdiInfo, places: Mapping[str, str]) -> dict[str, Any]:
    """The row of a disk that has none yet."""
    return {
        "snapshot_time": EPOCH,
        **said(info, places),
        "uuid": info.uuid or str(uuids.uuid4()),
        "location": info.location,
        "SR": sr,
        "managed": info.managed,
        "sm_config": dict(info.sm_config),
    }


def places(rows: Rows, sr: str) -> dict[str, str]:
    """Where the SR's disks are, and what they are called, to references. Locations first: they are the SR's names."""
    disks = [(ref, row) for ref in existing(rows, "SR", sr)["VDIs"] if (row := rows.row("VDI", ref)) is not None]
    return {row["uuid"]: ref for ref, row in disks} | {row["location"]: ref for ref, row in disks}


def stat_fields(stat: SrStat) -> dict[str, Any]:
    return {
        "physical_size": stat.physical_size,
        "physical_utilisation": stat.physical_utilisation,
        "clustered": stat.clustered,
    }


def refreshed(rows: Rows, ref: str, info: VdiInfo) -> list[Change]:
    """What brings one known disk in line."""
    row = existing(rows, "VDI", ref)
    now = said(info, places(rows, row["SR"]), row)
    changed = {name: value for name, value in now.items() if row[name] != value}
    return [Update(cls="VDI", ref=ref, fields=changed)] if changed else []


def reconciled(rows: Rows, sr: str, scan: SrScan, moving: Container[str] = ()) -> list[Change]:
    """What a scan found: new disks appear, known ones are updated, those that are gone disappear.

    Nothing is said about disks (uuid) that are `moving`.
    """
    row = existing(rows, "SR", sr)
    where = places(rows, sr)
    known = {disk["location"]: ref for ref in row["VDIs"] if (disk := rows.row("VDI", ref)) is not None}
    fields = {**stat_fields(scan.stat), "virtual_allocation": sum(info.virtual_size for info in scan.disks)}
    changed = {name: value for name, value in fields.items() if row[name] != value}
    result: list[Change] = [Update(cls="SR", ref=sr, fields=changed)] if changed else []
    if DIRTY in row["other_config"]:
        result.append(MapDrop(cls="SR", ref=sr, field="other_config", key=DIRTY))
    new = [info for info in scan.disks if info.location not in known and info.uuid not in moving]
    refs = {info.location: f"OpaqueRef:{uuids.uuid4()}" for info in new}
    where |= {info.uuid: refs[info.location] for info in new if info.uuid} | refs
    result += [Create(cls="VDI", ref=refs[info.location], fields=found(sr, info, where)) for info in new]
    for info in scan.disks:
        ref = known.pop(info.location, None)
        if ref is None or info.uuid in moving:
            continue
        disk = existing(rows, "VDI", ref)
        now = {name: value for name, value in said(info, where, disk).items() if disk[name] != value}
        if now:
            result.append(Update(cls="VDI", ref=ref, fields=now))
    for ref in known.values():
        disk = existing(rows, "VDI", ref)
        if not disk["current_operations"] and disk["uuid"] not in moving:
            result.append(Delete(cls="VDI", ref=ref))
    return result
