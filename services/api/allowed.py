"""Which operations an object allows: the decisions of each class, by name, and keeping `allowed_operations` up to date.

Whoever changes an object publishes what it allows then, in the same transaction. What depends on other objects (a VM on
its disks) is brought up to date by `Publisher` a moment later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from services.api.api import Api
from services.api.decisions import (
    appliance_operations,
    host_operations,
    network_operations,
    pool_operations,
    sr_operations,
    vbd_operations,
    vdi_operations,
    vif_operations,
    vm_operations,
    vtpms,
    vusb_operations,
)
from services.api.decisions.rows import Record, Rows, existing
from services.api.overlay import Overlay
from services.api.owners import Owners
from shared.contracts.db import Change, Delta, RowPresent, Update
from shared.errors import ApiError
from shared.store import Store, Touched

log = logging.getLogger("api.allowed")

Check = Callable[[Rows, str, str], ApiError | None]
Allowed = Callable[[Rows, str], list[str]]

CHECKS: Final[dict[str, Check]] = {
    "VM": vm_operations.check,
    "VBD": vbd_operations.check,
    "VIF": vif_operations.check,
    "VDI": vdi_operations.check,
    "SR": sr_operations.check,
    "host": host_operations.check,
    "network": network_operations.check,
    "pool": pool_operations.check,
    "VM_appliance": appliance_operations.check,
    "VUSB": vusb_operations.check,
    "VTPM": vtpms.check,
}

ALLOWED: Final[dict[str, Allowed]] = {
    "VM": vm_operations.allowed_operations,
    "VBD": vbd_operations.allowed_operations,
    "VIF": vif_operations.allowed_operations,
    "VDI": vdi_operations.allowed_operations,
    "SR": sr_operations.allowed_operations,
    "host": host_operations.allowed_operations,
    "network": network_operations.allowed_operations,
    "pool": pool_operations.allowed_operations,
    "VM_appliance": appliance_operations.allowed_operations,
    "VUSB": vusb_operations.allowed_operations,
    "VTPM": vtpms.allowed_operations,
}

_DEPENDENTS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "VM": (("VBD", "VBDs"), ("VIF", "VIFs"), ("VUSB", "VUSBs"), ("VTPM", "VTPMs"), ("VM_appliance", "appliance")),
    "VBD": (("VM", "VM"), ("VDI", "VDI")),
    "VIF": (("VM", "VM"),),
    "VGPU": (("VM", "VM"),),
    "VUSB": (("VM", "VM"),),
    "VTPM": (("VM", "VM"),),
    "VDI": (("VBD", "VBDs"), ("SR", "SR")),
    "PBD": (("SR", "SR"),),
}
"""Class of a changed row -> (class, field) of the objects whose operations depend on it."""


def _dependents(cls: str, row: Record) -> Iterator[tuple[str, str]]:
    for dependent, name in _DEPENDENTS.get(cls, ()):
        value = row[name]
        for ref in value if isinstance(value, list) else (value,):
            yield dependent, ref


def _disks_of_sr(store: Store, pbd: Touched) -> Iterator[tuple[str, str]]:
    sr = store.row("SR", pbd.row.fields["SR"])
    return (("VDI", ref) for ref in (sr["VDIs"] if sr is not None else ()))


def _of_driver(store: Store, driver: Touched) -> Iterator[tuple[str, str]]:
    for ref, sr in store.rows("SR").items():
        if sr["type"] == driver.row.fields["type"]:
            yield "SR", ref
            yield from (("VDI", vdi) for vdi in sr["VDIs"])


_REMOTE_DEPENDENTS: Final[dict[str, Callable[[Store, Touched], Iterator[tuple[str, str]]]]] = {
    "PBD": _disks_of_sr,
    "SM": _of_driver,
}
"""The same where the changed row does not name them."""

METRICS: Final = frozenset({"host_metrics", "VM_guest_metrics"})
"""Classes whose rows decide on what their owners allow (`owners`)."""

TURN: Final = 0.005
"""Seconds of looking at objects after which others get their turn."""


def published(store: Store, cls: str, ref: str, changes: Iterable[Change]) -> list[Change]:
    """The change that publishes what the object allows after `changes`; none if it is the same or gone."""
    rows = Overlay(store, changes)
    row = rows.row(cls, ref)
    if row is None:
        return []
    allowed = sorted(ALLOWED[cls](rows, ref))
    return [] if sorted(row["allowed_operations"]) == allowed else [_update(cls, ref, allowed)]


def _update(cls: str, ref: str, allowed: list[str]) -> Change:
    return Update(cls=cls, ref=ref, fields={"allowed_operations": allowed})


class Publisher:
    """Follows the replica and corrects `allowed_operations` of what a commit may have affected. Coordinator only."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stale: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._owners = Owners(api.store)
        api.replica.watch(self._on_commit)

    def _on_commit(self, touched: list[Touched], delta: Delta | None) -> None:
        before = len(self._stale)
        self._owners.note(touched)
        for item in touched:
            # Also what its writer has published with it: that may have been decided before another's change arrived.
            if item.cls in ALLOWED and item.kind != "del":
                self._stale[item.cls, item.ref] = None
            self._stale |= dict.fromkeys(_dependents(item.cls, item.row.fields))
            if item.cls in _REMOTE_DEPENDENTS:
                self._stale |= {key: None for key in _REMOTE_DEPENDENTS[item.cls](self._api.store, item)}
            if item.cls in METRICS:
                for owner, ref in self._owners.of(self._api.store, item.ref):
                    self._stale |= dict.fromkeys(
                        [(owner, ref), *_dependents(owner, existing(self._api.store, owner, ref))]
                    )
        if len(self._stale) > before:
            self._wake.set()

    async def run(self) -> None:
        """Begins with every object: what the rows say may be from another version, or from before a crash."""
        self._stale |= {(cls, ref): None for cls in ALLOWED for ref in self._api.store.tables[cls].rows}
        self._wake.set()
        while True:
            await self._wake.wait()
            await asyncio.sleep(0.02)  # what one operation touches in several commits is looked at once
            self._wake.clear()
            stale, self._stale = self._stale, {}
            changes: list[Change] = []
            begun = time.perf_counter()
            for cls, ref in stale:
                if time.perf_counter() - begun > TURN:
                    await asyncio.sleep(0)
                    begun = time.perf_counter()
                try:
                    changes += published(self._api.store, cls, ref, ())
                except ApiError as error:  # what it depends on is gone; a later change brings it up again
                    log.info("what %s %s allows cannot be told: %s", cls, ref, error)
                if len(changes) >= 200:
                    await self._write(changes)
                    changes = []
            await self._write(changes)

    async def _write(self, changes: list[Change]) -> None:
        if not changes:
            return
        store = self._api.store
        alive = [change for change in changes if store.row(change.cls, change.ref) is not None]
        try:
            given = [RowPresent(cls=change.cls, ref=change.ref) for change in alive]
            await self._api.database.transact(alive, given)
        except ApiError as error:
            log.info("allowed operations not published, trying again: %s", error)
            for change in alive:
                self._stale[change.cls, change.ref] = None
            self._wake.set()
            await asyncio.sleep(0.2)
