"""Volumes as plug-ins describe them, as the interface of SR types has them, and what the toolstack keeps with them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from services.storage.plugins.interface import Volume
from services.storage.smapiv3.interface_v5 import VolumeRecord

CLONE_ON_BOOT: Final = "clone-on-boot"
"""The key of the volume that a run of a VM writes to instead."""
TYPE: Final = "vdi-type"
CONTENT_ID: Final = "content_id"
INHERITED: Final = (TYPE, CONTENT_ID)
"""What a volume with the same content has as well."""

_UUIDS: Final = uuid.UUID("6a5a0b63-3f0f-4d4c-9d0b-5d5ad0a1a5a3")
"""Namespace for volumes that have no uuid of their own."""


def volume(sr: str, record: VolumeRecord, uris: list[str], keys: dict[str, str] | None = None) -> Volume:
    """`sr`: uuid. `keys`: what it has besides those in its record."""
    kept = {key: value for key, value in record.keys.items() if key != CLONE_ON_BOOT} | (keys or {})
    if record.volume_type == "CBT_Metadata":
        kept.setdefault(TYPE, "cbt_metadata")
    return Volume(
        key=record.key,
        uuid=_uuid(record.uuid) or _uuid(record.key) or str(uuid.uuid5(_UUIDS, f"{sr}/{record.key}")),
        name=record.name,
        description=record.description,
        read_write=record.read_write,
        virtual_size=record.virtual_size,
        physical_utilisation=record.physical_utilisation,
        uri=uris,
        keys=kept,
        sharable=record.sharable,
        cbt_enabled=bool(record.cbt_enabled),
    )


def _uuid(text: str | None) -> str:
    """As everybody writes it, "" if it is none. Plug-ins without uuids get some that are always the same."""
    try:
        return str(uuid.UUID(text or ""))
    except ValueError:
        return ""


def visible(records: Iterable[VolumeRecord], temporaries: Iterable[str]) -> list[VolumeRecord]:
    """Without the clones that runs of VMs write to. `temporaries`: those that their origins do not name."""
    listed = list(records)
    hidden = {record.keys[CLONE_ON_BOOT] for record in listed if CLONE_ON_BOOT in record.keys} | set(temporaries)
    return [record for record in listed if record.key not in hidden]


def of_snapshot(source: VolumeRecord, now: datetime) -> dict[str, str]:
    """What says that a volume is a snapshot."""
    time = now.astimezone(UTC).strftime("%Y%m%dT%H:%M:%SZ")
    return inherited(source) | {"is_a_snapshot": "true", "snapshot_of": source.key, "snapshot_time": time}


def inherited(source: VolumeRecord) -> dict[str, str]:
    return {key: source.keys[key] for key in INHERITED if key in source.keys}
