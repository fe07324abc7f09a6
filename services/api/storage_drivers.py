"""Which SR types hosts can run: asked when a host comes in and whenever it says that they have changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from services.api.api import Api
from services.api.decisions import sm_rows
from services.api.decisions.liveness import is_live
from shared.bus.contract import Empty
from shared.contracts import storage
from shared.contracts.db import Change, Precondition
from shared.errors import ApiError
from shared.store import Store

log = logging.getLogger("api.drivers")

AGAIN: float = 5.0
"""Seconds after which a host that could not be asked is asked anew."""


class StorageDrivers:
    """Keeps rows of class SM; coordinator only."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._types: dict[str, set[str]] = {}
        """By host (uuid): what it has said since this process began."""
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    async def subscribe(self) -> None:
        await self._api.bus.subscribe(storage.DRIVERS_CHANGED, self._on_change)

    def _on_change(self, change: storage.DriversChanged, _: str) -> None:
        self._changed.add(change.host)
        self._wake.set()

    async def run(self) -> None:
        """Hosts that have changed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for host in sorted(self._changed):
                self._changed.discard(host)
                ref = self._api.store.ref_of_uuid("host", host)
                if ref is None or not is_live(self._api.store, ref):
                    continue  # it is asked when it comes in
                try:
                    await self.ask(host, ref)
                except ApiError as error:
                    log.warning("host %s does not say which SR types it has: %s", host, error)
                    self._changed.add(host)
            if self._changed:
                await asyncio.sleep(AGAIN)
                self._wake.set()

    async def ask(self, host: str, ref: str) -> None:
        """`host`: uuid, `ref`: its reference."""
        drivers = (await self._api.bus.call(storage.DRIVERS, Empty(), host=host)).drivers
        self._types[host] = {driver.type for driver in drivers}

        def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
            return [*sm_rows.reported(store, ref, drivers), *self._removed(store)], [], None

        await self._api.database.decide(decision)

    def _removed(self, store: Store) -> list[Change]:
        """Only when every host has said what it has: one that is away may have more."""
        hosts = {row["uuid"] for row in store.rows("host").values()}
        if not hosts <= self._types.keys():
            return []
        return sm_rows.removed(store, set().union(*(self._types[host] for host in hosts)))
