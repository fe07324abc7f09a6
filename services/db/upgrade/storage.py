"""Disks and storage connections of older releases."""

from __future__ import annotations

from collections.abc import Iterator

from services.db.upgrade.rule import Surroundings
from shared.contracts.db import Change, Update
from shared.store import Store

RESTRICTED = "SRmaster"
"""A key of `PBD.device_config` that the storage itself decides on."""


def redo_log_disks(store: Store, _: Surroundings) -> Iterator[Change]:
    """Redo logs lay on disks of a type that has another meaning now."""
    for ref, vdi in store.rows("VDI").items():
        if vdi["type"] == "metadata":
            yield Update(cls="VDI", ref=ref, fields={"type": "redo_log"})


def restricted_keys(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref, pbd in store.rows("PBD").items():
        kept = {key: value for key, value in pbd["device_config"].items() if key != RESTRICTED}
        yield Update(cls="PBD", ref=ref, fields={"device_config": kept})
