"""Rows of the database as disks of an SR: drivers of SMAPIv1 keep what they know there and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from services.storage.plugins.interface import Volume
from services.storage.smapiv1.xapi import NULL

SCHEME: Final = "smapiv1://"
CONTENT_ID: Final = "content_id"
HOST_TAG: Final = "host_"
"""Begins the keys of a disk's `sm_config` by which drivers know the hosts that use it; the host's reference follows."""

Row = Mapping[str, Any]


def uri(sr: str, location: str) -> str:
    return f"{SCHEME}{sr}/{quote(location, safe='')}"


def parse_uri(text: str) -> tuple[str, str]:
    """SR (uuid) and location."""
    sr, _, location = text.removeprefix(SCHEME).partition("/")
    return sr, unquote(location)


def volume(sr: str, row: Row, uuids: Mapping[str, str]) -> Volume:
    """`sr`: uuid. `uuids`: of the disks of the SR, by reference."""
    metadata_of_pool = row["metadata_of_pool"]
    keys = {
        "vdi-type": row["type"],
        "snapshot_of": uuids.get(row["snapshot_of"], ""),
        "snapshot_time": row["snapshot_time"],
        "metadata_of_pool": "" if metadata_of_pool == NULL else metadata_of_pool,
        CONTENT_ID: row["other_config"].get(CONTENT_ID, ""),
        **({"is_a_snapshot": "true"} if row["is_a_snapshot"] else {}),
        **{f"_sm_config_{key}": value for key, value in row["sm_config"].items()},
    }
    return Volume(
        key=row["location"],
        uuid=row["uuid"],
        name=row["name_label"],
        description=row["name_description"],
        read_write=not row["read_only"],
        virtual_size=int(row["virtual_size"]),
        physical_utilisation=int(row["physical_utilisation"]),
        uri=[uri(sr, row["location"])],
        keys={key: value for key, value in keys.items() if value},
        sharable=row["sharable"],
        managed=row["managed"],
        cbt_enabled=row["cbt_enabled"],
    )


def similar(of: str, rows: Mapping[str, Row]) -> list[str]:
    """Locations by their distance in the tree of parents, nearest first, the disk itself at the front.

    `rows`: by location. Disks that hold no data are passed over.
    """
    parents = {location: parent for location, row in rows.items() if (parent := row["sm_config"].get("vhd-parent"))}
    near: dict[str, set[str]] = {}
    for child, parent in parents.items():
        near.setdefault(child, set()).add(parent)
        near.setdefault(parent, set()).add(child)
    found, edge = [of], [of]
    while edge:
        edge = sorted({one for each in edge for one in near.get(each, ())} - set(found))
        found += edge
    return [location for location in found if location in rows and rows[location]["type"] != "cbt_metadata"]
