"""Asking the storage service of the right host, and how long-lived scans bring rows in line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from services.api.api import Api
from services.api.decisions.liveness import is_live
from services.api.decisions.rows import existing
from services.api.decisions.sr_hosts import host_for
from services.api.decisions.vdi_rows import reconciled, stat_fields
from shared.bus.contract import Method, Reply, Request
from shared.contracts import storage as contract
from shared.contracts.db import Change, Precondition, RowPresent, Update
from shared.contracts.storage import SrScan, SrStat
from shared.errors import ApiError, internal_error
from shared.store import Store

__all__ = ["ask", "disk", "host_for", "is_live", "rescan", "stat_change"]

SCANS: Final = 10
"""How often an SR is looked at anew whose driver adds or removes rows meanwhile (storage 4.3)."""


async def ask(api: Api, host: str, method: Method[Request, Reply], request: Request) -> Reply:
    """`host`: reference."""
    return await api.bus.call(method, request, host=api.uuid_of("host", host))


def disk(api: Api, vdi: str) -> contract.VdiRef:
    """Raises HANDLE_INVALID."""
    row = existing(api.store, "VDI", vdi)
    return contract.VdiRef(sr=api.uuid_of("SR", row["SR"]), location=row["location"])


def stat_change(sr: str, stat: SrStat) -> Change:
    return Update(cls="SR", ref=sr, fields={**stat_fields(stat), "virtual_allocation": stat.virtual_allocation})


async def rescan(api: Api, sr: str, host: str, more: Sequence[Change] = ()) -> None:
    """Asks a host (uuid) what the SR holds, and brings the rows in line, together with `more` changes.

    A driver that writes rows itself while it looks has the last word: then it is asked again. Raises INTERNAL_ERROR if
    it never stops.
    """
    async with api.disks.scan(sr) as moving:
        request = contract.SrRef(sr=api.uuid_of("SR", sr))
        for _ in range(SCANS):
            before = _disks(api.store, sr)
            found = await api.bus.call(contract.SR_SCAN, request, host=host)
            decision = partial(_in_line, sr=sr, before=before, moving=moving, found=found, more=more)
            if await api.database.decide(decision):
                return
    raise internal_error(f"the disks of SR {request.sr} changed {SCANS} times while it was scanned")


def _in_line(
    store: Store, *, sr: str, before: dict[str, str], moving: set[str], found: SrScan, more: Sequence[Change]
) -> tuple[Sequence[Change], Sequence[Precondition], bool]:
    """What brings rows in line with what was found; False if others have changed them since `before`."""
    if _others(store, sr, before, moving):
        return [], [], False
    return [*more, *reconciled(store, sr, found, moving)], [RowPresent(cls="SR", ref=sr)], True


def _disks(store: Store, sr: str) -> dict[str, str]:
    """References to uuids."""
    return {ref: existing(store, "VDI", ref)["uuid"] for ref in existing(store, "SR", sr)["VDIs"]}


def _others(store: Store, sr: str, before: dict[str, str], moving: set[str]) -> bool:
    """Whether rows have come or gone that no call of ours makes or removes."""
    now = _disks(store, sr)
    return any((now.get(ref) or before[ref]) not in moving for ref in now.keys() ^ before.keys())


async def restat(api: Api, sr: str) -> None:
    """How full the SR is now. Raises what its plug-in says."""
    host = host_for(api.store, sr)
    stat = await ask(api, host, contract.SR_STAT, contract.SrRef(sr=api.uuid_of("SR", sr)))
    row, fields = existing(api.store, "SR", sr), stat_fields(stat)
    if any(row[name] != value for name, value in fields.items()):
        try:
            await api.database.transact([Update(cls="SR", ref=sr, fields=fields)], [RowPresent(cls="SR", ref=sr)])
        except ApiError as error:
            if error.code != "DB_CONFLICT":
                raise
