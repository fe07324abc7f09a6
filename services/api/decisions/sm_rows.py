"""Rows of class SM: the SR types that hosts can run (storage 1.4).

What a driver cannot do any more is gone at once, whoever says so. What it can do now waits in `host_pending_features`
until every host has said so, in the lowest version of all.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from services.api.decisions.rows import Record, Rows
from shared.contracts.db import Change, Create, Delete, Update
from shared.contracts.storage import DriverInfo
from shared.datamodel import model
from shared.datamodel.types import EnumType, SetType

Features = Mapping[str, int]


def _image_formats() -> frozenset[str]:
    declared = model.classes["SM"].fields["supported_image_formats"].type
    assert isinstance(declared, SetType)
    assert isinstance(declared.of, EnumType)
    return frozenset(declared.of.values)


IMAGE_FORMATS: Final = _image_formats()


def reported(rows: Rows, host: str, drivers: Sequence[DriverInfo]) -> list[Change]:
    """What a host (reference) says it can run, in rows."""
    known = {row["type"]: (ref, row) for ref, row in rows.rows("SM").items()}
    changes: list[Change] = []
    for driver in drivers:
        fields = _fields(driver)
        if driver.type not in known:
            new = {**fields, **_able(driver.features), "type": driver.type}
            changes.append(Create(cls="SM", ref=_ref(driver.type), fields=new))
            continue
        ref, row = known[driver.type]
        able, pending = _agreed(row, host, driver.features, list(rows.rows("host")))
        fields |= {**_able(able), "host_pending_features": pending}
        changed = {name: value for name, value in fields.items() if row[name] != value}
        if changed:
            changes.append(Update(cls="SM", ref=ref, fields=changed))
    return changes


def removed(rows: Rows, known: Collection[str]) -> list[Change]:
    """Rows of types that no host has (`known`: those that hosts have) and no SR uses."""
    used = {sr["type"] for sr in rows.rows("SR").values()}
    return [
        Delete(cls="SM", ref=ref)
        for ref, row in rows.rows("SM").items()
        if row["type"] not in known and row["type"] not in used
    ]


def _fields(driver: DriverInfo) -> dict[str, object]:
    return {
        "name_label": driver.name,
        "name_description": driver.description,
        "vendor": driver.vendor,
        "copyright": driver.copyright,
        "version": driver.version,
        "required_api_version": driver.required_api_version,
        "configuration": dict(driver.configuration),
        "driver_filename": driver.driver_filename,
        "required_cluster_stack": list(driver.required_cluster_stack),
        "supported_image_formats": [one for one in driver.supported_image_formats if one in IMAGE_FORMATS],
    }


def _able(features: Features) -> dict[str, object]:
    return {"features": dict(features), "capabilities": sorted(features)}


def _agreed(
    row: Record, host: str, features: Features, hosts: Sequence[str]
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """What all hosts can, and what each host can that others have not said yet (`NAME/version`)."""
    old: Features = row["features"]
    kept = {name: version for name, version in old.items() if features.get(name) == version}
    waiting = {ref: _parsed(said) for ref, said in row["host_pending_features"].items() if ref in hosts}
    waiting[host] = {name: version for name, version in features.items() if kept.get(name) != version}
    everywhere = [waiting.get(ref, {}) for ref in hosts]
    agreed = {
        name: min(said[name] for said in everywhere)
        for name in waiting[host]
        if all(name in said for said in everywhere)
    }
    pending = {
        ref: sorted(f"{name}/{version}" for name, version in said.items() if name not in agreed)
        for ref, said in waiting.items()
    }
    return kept | agreed, {ref: said for ref, said in pending.items() if said}


def _parsed(said: Sequence[str]) -> dict[str, int]:
    pairs = (text.rpartition("/") for text in said)
    return {name: int(version) for name, _, version in pairs if version.isdecimal()}


def _ref(type_: str) -> str:
    """The same for every host that reports the driver, so that two at once make one row."""
    return f"OpaqueRef:{uuids.uuid5(uuids.NAMESPACE_URL, f'sm:{type_}')}"
