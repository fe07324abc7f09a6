"""The processes of the database on other hosts: what they say of themselves, and what they hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from shared import garbage
from shared.bus.context import NO_TERM, CallContext
from shared.bus.contract import Empty
from shared.bus.interface import Bus
from shared.contracts import db as contract
from shared.errors import ApiError
from shared.lineage import Lineage
from shared.store import Store

log = logging.getLogger("db.standby")

ANSWER: Final = 0.4
"""Seconds that a process gets to say what it is. One whose host is cut off has a queue for a while, and is silent."""

NOBODYS: Final = CallContext(term=NO_TERM)
"""Of calls that are answered also by who is of a later term: they are how one hears of it."""

PART: Final = 200
"""Rows of a snapshot that are taken in before others get their turn."""


class Snapshot:
    """All rows of some process. `requests`: finished ones, with their generations."""

    def __init__(self, store: Store, lineage: Lineage, requests: dict[str, int]) -> None:
        self.store = store
        self.lineage = lineage
        self.requests = requests


class Peers:
    """`highest`: term that any of them has had, or promised to begin, as far as this process has heard."""

    def __init__(self, bus: Bus) -> None:
        self.highest = 0
        self._bus = bus

    async def roles(self, hosts: Iterable[str], timeout: float = ANSWER) -> list[contract.DbRole]:
        """Of those that answer in time."""
        answers = await asyncio.gather(*(self._role(host, timeout) for host in hosts))
        found = [answer for answer in answers if answer is not None]
        self.highest = max([self.highest, *(max(role.term, role.promised) for role in found)])
        return found

    async def _role(self, host: str, timeout: float) -> contract.DbRole | None:
        try:
            return await self._bus.call(contract.DB_ROLE, Empty(), host=host, timeout=timeout, context=NOBODYS)
        except ApiError as error:
            log.debug("no database process answers on host %s: %s", host, error)
            return None

    async def somebody_reigns(self) -> bool:
        """Whether a process takes the pool's requests now."""
        try:
            await self._bus.call(contract.CONFIRM, Empty(), context=NOBODYS)
        except ApiError as error:
            log.debug("no database process takes the pool's requests: %s", error)
            return False
        return True

    async def changes(self, position: contract.Position, host: str = "") -> contract.Changes:
        """Of that host's process; of the primary when none is named. Raises `ApiError`."""
        if host:
            return await self._bus.call(contract.HOST_CHANGES, position, host=host, timeout=10, context=NOBODYS)
        return await self._bus.call(contract.CHANGES_SINCE, position, timeout=10, context=NOBODYS)

    async def snapshot(self, host: str = "") -> Snapshot:
        """All rows, likewise. Raises `ApiError`."""
        store = Store()
        with garbage.paused():
            first = page = await self._page(contract.SnapshotRequest(requests=True), host)
            while True:
                for begin in range(0, len(page.rows), PART):
                    store.add(page.rows[begin : begin + PART])
                    await asyncio.sleep(0)
                if page.page + 1 >= page.pages:
                    break
                page = await self._page(contract.SnapshotRequest(snapshot=page.snapshot, page=page.page + 1), host)
            store.complete(page.generation, page.term)
        return Snapshot(store, Lineage(first.lineage), dict(first.requests))

    async def _page(self, request: contract.SnapshotRequest, host: str) -> contract.SnapshotPage:
        if host:
            return await self._bus.call(contract.HOST_SNAPSHOT, request, host=host, timeout=30, context=NOBODYS)
        return await self._bus.call(contract.SNAPSHOT, request, timeout=30, context=NOBODYS)
