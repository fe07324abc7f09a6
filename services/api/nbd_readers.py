"""The VBDs of a host's control domain that say which disks NBD clients read there (storage 5.7).

As upstream's server plugs a disk into the control domain for each client, so does this one, in the database alone: the
storage service opens the disk by itself. Such a VBD goes when its client goes, and it is not for others to unplug.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Collection, Sequence
from typing import Final

from services.api import clock
from services.api.allowed import published
from services.api.api import Api
from services.api.call import new_ref
from services.api.decisions import device_metrics, vbd_records
from services.api.decisions.rows import Rows, existing, is_null
from shared.contracts.db import Change, Create, Precondition, RowPresent, Unchanged
from shared.store import Store

KEY: Final = "nbd_client"
"""In `other_config`: the client's connection, as the storage service calls it."""


async def plugged(api: Api, host: str, connection: str, vdi: str) -> None:
    """A client of a host (reference) is about to read a disk (reference). Again: nothing changes.

    Raises VDI_INCOMPATIBLE_TYPE and whatever else VBD.create refuses.
    """
    ref, uuid, metrics = new_ref(), str(uuids.uuid4()), str(uuids.uuid4())

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        domain = _control_domain(store, host)
        if not domain or connection in _known(store, domain):
            return [], [], None
        given = {
            "VM": domain,
            "VDI": vdi,
            "userdevice": "autodetect",
            "bootable": False,
            "mode": "RO",
            "type": "Disk",
            "unpluggable": False,
            "empty": False,
            "other_config": {KEY: connection},
        }
        row = vbd_records.created(store, ref, uuid, given)
        attached = Create(cls="VBD", ref=ref, fields={**row.fields, "currently_attached": True})
        changes = device_metrics.with_metrics("VBD", attached, metrics, clock.now())
        found = store.find("VM", domain)
        assert found is not None, "it has just been looked at"
        # two clients at the same time do not get the same device
        alone = Unchanged(cls="VM", ref=domain, generation=found.modified)
        return [*changes, *published(store, "VBD", ref, changes)], [RowPresent(cls="VDI", ref=vdi), alone], None

    await api.database.decide(decision)


async def unplugged(api: Api, host: str, reading: Collection[str]) -> None:
    """Only these connections to a host (reference) read anything now."""

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        domain = _control_domain(store, host)
        gone = [ref for name, ref in _known(store, domain).items() if name not in reading] if domain else []
        changes = [change for ref in gone for change in device_metrics.removed(store, "VBD", ref)]
        return changes, [RowPresent(cls="VBD", ref=ref) for ref in gone], None

    await api.database.decide(decision)


def _control_domain(rows: Rows, host: str) -> str:
    """ "" for a host without one."""
    ref = str(existing(rows, "host", host)["control_domain"])
    return "" if is_null(ref) or rows.row("VM", ref) is None else ref


def _known(rows: Rows, domain: str) -> dict[str, str]:
    """Connections to VBDs."""
    vbds = {ref: rows.row("VBD", ref) for ref in existing(rows, "VM", domain)["VBDs"]}
    return {
        row["other_config"][KEY]: ref for ref, row in vbds.items() if row is not None and KEY in row["other_config"]
    }
