"""Which disks a call has left that ended without an outcome, since its process was killed. Pure functions.

Disks that a call makes have uuids that follow from its task, so that they are known by it, with a row or without.
Some have others: a driver of SMAPIv1 chooses for itself, and a client's task may be that of several calls. Their rows,
and those of disks that are being uploaded, say in `other_config` for whom they are made until that has succeeded: the
former from when the driver writes them; the latter are named in the SR's before there is a row.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Container, Iterable, Sequence
from typing import Final

from services.api.decisions.rows import Record, Rows, existing
from shared.contracts.db import Change, MapDrop, MapPut
from shared.store import Store

MARK: Final = "unfinished"
"""Key of a VDI's other_config: its owner, and its own uuid, since clients copy such maps from one disk to another."""

LOST: Final = "unfinished_by:"
"""Begins a key of an SR's other_config: with a task whose call may have left a disk without a row there, and, behind a
slash, the disk's uuid, unless it follows from the task.
"""

UPLOAD: Final = "upload/"
"""Begins an owner that is no call's task: host (uuid) and the API process that has the upload."""

DISKS: Final = 256
"""Of one call: more than a VM has devices."""

MAKING: Final = frozenset({"vdi_create", "vdi_clone", "vdi_snapshot"})
"""What SRs show while a disk is made in them."""

ORDINARY: Final = frozenset({"system", "user", "ephemeral"})
"""Types of disks that nobody uses without a VBD."""

USED_UNSEEN: Final = frozenset({"VDI.pool_migrate"})
"""Messages whose new disk a VM may have before any row says so: what is left of them is found out otherwise."""

_NAMESPACE: Final = uuids.UUID("5c4ef0ce-6f52-43b5-9d6c-6a0f2f1d4b1e")


def disk_of(task: str, number: int) -> str:
    """The uuid of a call's disk."""
    return str(uuids.uuid5(_NAMESPACE, f"{task}/{number}"))


def upload(host: str, process: str) -> str:
    return f"{UPLOAD}{host}/{process}"


def mark(owner: str, uuid: str) -> str:
    return f"{owner} {uuid}"


def is_marked(row: Record) -> bool:
    return MARK in row["other_config"]


def owner(row: Record) -> str | None:
    """For whom a disk is made. None: for nobody any more; "" when its mark is another disk's."""
    value = row["other_config"].get(MARK)
    if value is None:
        return None
    name, _, uuid = value.partition(" ")
    return str(name) if uuid == row["uuid"] else ""


def is_unused(rows: Rows, ref: str) -> bool:
    """Whether nobody would miss it. What has become a VM's before its call was lost, as after a VM.revert, is kept."""
    row = existing(rows, "VDI", ref)
    suspended = any(vm["suspend_VDI"] == ref for vm in rows.rows("VM").values())
    return row["type"] in ORDINARY and not row["VBDs"] and not suspended


def noted(sr: str, task: str, uuid: str) -> MapPut:
    """Before a call makes a disk in an SR whose uuid does not follow from its task."""
    return MapPut(cls="SR", ref=sr, field="other_config", key=f"{LOST}{task}/{uuid}", value="")


def forgotten(note: MapPut) -> MapDrop:
    """When the call has ended."""
    return MapDrop(cls=note.cls, ref=note.ref, field=note.field, key=note.key)


def left_by(rows: Store, call: str) -> list[Change]:
    """Marks the disks of a lost call that have rows. `call`: its task, and perhaps the disk, as behind `LOST`."""
    task, _, named = call.partition("/")
    uuids = [named] if named else [disk_of(task, number) for number in range(DISKS)]
    found = {uuid: rows.ref_of_uuid("VDI", uuid) for uuid in uuids}
    return [
        MapPut(cls="VDI", ref=ref, field="other_config", key=MARK, value=mark(task, uuid))
        for uuid, ref in found.items()
        if ref is not None
    ]


def lost(rows: Store, tasks: Iterable[str], srs: Iterable[tuple[str, str]]) -> list[Change]:
    """What is to be known of calls that are lost, when their locks go. `srs`: those in which they made a disk, and the
    task.
    """
    journal: list[Change] = [
        MapPut(cls="SR", ref=sr, field="other_config", key=f"{LOST}{task}", value="") for sr, task in srs
    ]
    return [*journal, *(change for task in tasks for change in left_by(rows, task))]


def lost_in(row: Record, running: Container[str]) -> list[str]:
    """Lost calls that may have left a disk in an SR, as it names them."""
    calls = (key.removeprefix(LOST) for key in row["other_config"] if key.startswith(LOST))
    return [call for call in calls if call.partition("/")[0] not in running]


def looked_into(rows: Store, sr: str, calls: Sequence[str]) -> list[Change]:
    """After a scan of the SR: what the calls have left there has rows now."""
    dropped: list[Change] = [MapDrop(cls="SR", ref=sr, field="other_config", key=f"{LOST}{call}") for call in calls]
    return [*(change for call in calls for change in left_by(rows, call)), *dropped]
