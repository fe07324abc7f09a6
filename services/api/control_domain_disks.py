"""Which disks a host's control domain has, after the host was away: what its storage service has open says so.

A machine that was restarted has none, whatever the rows say; a disk that was opened by a call whose API process was
killed is closed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from services.api.allowed import published
from services.api.api import Api
from services.api.decisions.rows import is_null
from services.api.nbd_readers import KEY
from services.api.operations.vbd_loopback import LOOP, datapath
from shared.bus.contract import Empty
from shared.contracts import storage
from shared.contracts.db import Change, Precondition, Unchanged, Update
from shared.store import Store

Row = Mapping[str, Any]

log = logging.getLogger("api.hosts")


async def follow(api: Api, host: str, ref: str) -> None:
    """`host`, `ref`: uuid and reference. Disks that a call is busy with meanwhile are left to it."""
    known = _idle(api.store, ref)
    held = (await api.bus.call(storage.DATAPATHS, Empty(), host=host)).datapaths
    opened = {each.dp for each in held if each.dp.startswith(LOOP)}
    wanted = {datapath(row["uuid"]) for row in api.store.rows("VBD").values() if _may_have(row)}
    stray = sorted(opened - wanted)
    if stray:
        log.warning("host %s has disks open for nobody, which are closed: %s", host, ", ".join(stray))
        await api.bus.call(storage.CLOSE, storage.Close(dps=stray), host=host)

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        changes: list[Change] = []
        given: list[Precondition] = []
        for vbd, generation in known.items():
            row = store.find("VBD", vbd)
            if row is not None and row.modified == generation and datapath(row.fields["uuid"]) not in opened:
                changes.append(Update(cls="VBD", ref=vbd, fields={"currently_attached": False}))
                given.append(Unchanged(cls="VBD", ref=vbd, generation=generation))
        concerned = [change.ref for change in changes]
        disks = {store.get("VBD", vbd, "VDI") for vbd in concerned}
        allowed = [now for vbd in concerned for now in published(store, "VBD", vbd, changes)]
        allowed += [now for vdi in disks if store.row("VDI", vdi) for now in published(store, "VDI", vdi, changes)]
        return [*changes, *allowed], given, None

    await api.database.decide(decision)


def _may_have(row: Row) -> bool:
    return bool(row["currently_attached"] or row["current_operations"])


def _idle(store: Store, host: str) -> dict[str, int]:
    """VBDs of the host's control domain that are attached, by the rows, and their generation; not those of NBD
    clients, which the storage service tells by itself.
    """
    domain = store.get("host", host, "control_domain")
    if is_null(domain) or store.row("VM", domain) is None:
        return {}
    found = {vbd: store.find("VBD", vbd) for vbd in store.get("VM", domain, "VBDs")}
    return {
        vbd: row.modified
        for vbd, row in found.items()
        if row is not None
        and row.fields["currently_attached"]
        and not row.fields["current_operations"]
        and KEY not in row.fields["other_config"]
    }
