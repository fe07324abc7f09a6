"""VDI messages about changed blocks (storage 4.5, 5.6): tracking them, and snapshots that keep nothing else."""

from __future__ import annotations

import time
from typing import Final

from services.api.call import Call
from services.api.decisions import features
from services.api.decisions.rows import existing
from services.api.decisions.sr_hosts import host_for, host_for_disk
from services.api.operation import Lock, operation
from services.api.operations.vdi import users_forgotten
from services.api.storage_hosts import ask, disk
from shared.bus.contract import Empty, Method
from shared.contracts import storage as contract
from shared.contracts.db import Update
from shared.errors import ApiError

VBDS_VANISH: Final = 4.0
"""Seconds that drives of a snapshot get to go, such as those of a backup that has just ended."""


async def _track(call: Call, vdi: str, method: Method[contract.VdiRef, Empty], enabled: bool) -> None:
    """Repeating it changes nothing."""
    host = host_for_disk(call.store, vdi)
    if existing(call.store, "VDI", vdi)["cbt_enabled"] != enabled:
        await ask(call.api, host, method, disk(call.api, vdi))
        call.on_success.append(Update(cls="VDI", ref=vdi, fields={"cbt_enabled": enabled}))


@operation("VDI.enable_cbt", Lock("VDI", "enable_cbt", sr="vdi_enable_cbt"))
async def enable_cbt(call: Call, self: str) -> None:
    features.require(call.store, "cbt", "CBT")
    await _track(call, self, contract.VDI_ENABLE_CBT, True)


@operation("VDI.disable_cbt", Lock("VDI", "disable_cbt", sr="vdi_disable_cbt"))
async def disable_cbt(call: Call, self: str) -> None:
    await _track(call, self, contract.VDI_DISABLE_CBT, False)


@operation("VDI.list_changed_blocks", Lock("VDI", "list_changed_blocks", argument=1, sr="vdi_list_changed_blocks"))
async def list_changed_blocks(call: Call, vdi_from: str, vdi_to: str) -> str:
    """Base64 of a bitmap with a bit for each 64 KiB, the first one in the most significant bit."""
    later = disk(call.api, vdi_to)
    host = host_for(call.store, existing(call.store, "VDI", vdi_to)["SR"])
    request = contract.VdiPair(sr=later.sr, location=disk(call.api, vdi_from).location, other=later.location)
    return (await ask(call.api, host, contract.VDI_CHANGED_BLOCKS, request)).bitmap


@operation("VDI.data_destroy", Lock("VDI", "data_destroy", sr="vdi_data_destroy"))
async def data_destroy(call: Call, self: str) -> None:
    """The type changes first, so that nobody makes a drive of the snapshot meanwhile; if it fails, it changes back."""
    row = existing(call.store, "VDI", self)
    host = host_for(call.store, row["SR"])
    if row["type"] == "cbt_metadata":
        return

    async def change_back() -> None:
        await call.api.database.transact([Update(cls="VDI", ref=self, fields={"type": row["type"]})])

    call.undo.append(change_back)
    await call.transact([Update(cls="VDI", ref=self, fields={"type": "cbt_metadata"})])
    await _without_vbds(call, self)
    await ask(call.api, host, contract.VDI_DATA_DESTROY, disk(call.api, self))
    call.on_success += users_forgotten(call.store, self)


async def _without_vbds(call: Call, vdi: str) -> None:
    """Raises VDI_IN_USE [vdi, "data_destroy"]."""
    deadline = time.monotonic() + VBDS_VANISH
    while vbds := existing(call.store, "VDI", vdi)["VBDs"]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ApiError("VDI_IN_USE", vdi, "data_destroy")
        await call.api.waiters.changed("VBD", vbds[0], left)
