"""How the merging of images goes on, told to operators: metrics, and events on the bus."""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.storage.plugins.file.coalesce import Status
from shared.bus.interface import Bus, BusError
from shared.contracts.storage import MERGES, Merge

log = logging.getLogger("storage.merges")

_OUTCOMES = ("end", "stopped", "failed")
_BACKLOG = 1000
"""Events that wait for a bus that is away; later ones are only counted."""


class Merges:
    """Of all hosts of the process. `run` publishes, in order, what was heard."""

    def __init__(self, registry: CollectorRegistry, bus: Bus) -> None:
        labels = ["host", "sr"]
        self._running = Gauge("storage_merging", "1 while images of the SR are being merged", labels, registry=registry)
        self._waiting = Gauge(
            "storage_merges_waiting", "Merges that wait for who has the images open", labels, registry=registry
        )
        self._failing = Gauge("storage_merges_failing", "1 if the last merge has failed", labels, registry=registry)
        self._count = Counter(
            "storage_merges", "Merges by outcome: end, stopped, failed", [*labels, "outcome"], registry=registry
        )
        self._seconds = Counter("storage_merge_seconds", "Time spent on merges that ended", labels, registry=registry)
        self._bus = bus
        self._events: asyncio.Queue[Merge] = asyncio.Queue(_BACKLOG)

    def heard(self, event: Merge, status: Status) -> None:
        key = (event.host, event.sr)
        self._running.labels(*key).set(event.event == "begin")
        self._waiting.labels(*key).set(event.waiting)
        self._failing.labels(*key).set(bool(status.failed))
        if event.event in _OUTCOMES:
            self._count.labels(*key, event.event).inc()
        if event.event == "end":
            self._seconds.labels(*key).inc(event.seconds)
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("nobody is told of a merge: %s", event)

    async def run(self) -> None:
        """For ever."""
        while True:
            event = await self._events.get()
            try:
                await self._bus.publish(MERGES, event, host=event.host)
            except BusError as error:
                log.warning("nobody hears of a merge: %s: %s", event, error)
