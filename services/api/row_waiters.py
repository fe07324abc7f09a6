"""Calls that wait for a row to change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from shared.contracts.db import Delta
from shared.replica import Replica
from shared.store import Touched


class RowWaiters:
    """Wakes calls that wait for a row to change."""

    def __init__(self, replica: Replica) -> None:
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        replica.watch(self._on_commit)

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        for item in touched:
            for event in self._waiting.get((item.cls, item.ref), ()):
                event.set()

    @contextmanager
    def watching(self, cls: str, ref: str) -> Iterator[asyncio.Event]:
        """An event that every change of the row sets: clear it, look at the row, then wait."""
        event = asyncio.Event()
        events = self._waiting.setdefault((cls, ref), set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            if not events:
                self._waiting.pop((cls, ref), None)

    async def changed(self, cls: str, ref: str, timeout: float) -> None:
        """Until the row changes or `timeout` seconds have passed."""
        with self.watching(cls, ref) as event:
            await wait(event, timeout)


async def wait(event: asyncio.Event, timeout: float) -> None:
    """Until the event is set or `timeout` seconds have passed."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return
