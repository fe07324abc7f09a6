"""The watch over the clocks of all hosts: one alert when one is far off; another only after it was right again.

Heartbeats say what time it is where they come from. How long one was on its way counts as a difference too, which is
nothing beside minutes.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import Final

from services.ha.records import HostRecords
from shared.bus.interface import Bus, BusError
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.ha import HEARTBEAT, Heartbeat

log = logging.getLogger("ha.clocks")

FAR: Final = 300.0
NEAR: Final = 150.0
"""Seconds (`database-pool-ha` 1.11)."""

NAME: Final = "HOST_CLOCK_SKEW_DETECTED"
PRIORITY: Final = 3


def judged(far: frozenset[str], host: str, difference: float) -> frozenset[str]:
    """The hosts whose clocks are taken to be far off, after a heartbeat. In between nothing changes."""
    if difference > FAR:
        return far | {host}
    if difference < NEAR:
        return far - {host}
    return far


class Clocks:
    """`clock`: Unix time here."""

    def __init__(self, bus: Bus, records: HostRecords, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._records = records
        self._clock = clock
        self._far: frozenset[str] = frozenset()
        self._news: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    async def start(self) -> None:
        await self._bus.subscribe(HEARTBEAT, self._heard)

    def _heard(self, beat: Heartbeat, _: str) -> None:
        if beat.host not in self._records.live():
            return
        difference = beat.time - self._clock()
        before, self._far = self._far, judged(self._far, beat.host, abs(difference))
        if beat.host in self._far - before:
            self._news.put_nowait((beat.host, difference))
        elif beat.host in before - self._far:
            log.info("the clock of host %s is right again", beat.host)

    async def run(self) -> None:
        """Until cancelled. An alert that cannot be published is only logged: the log has it already."""
        while True:
            host, difference = await self._news.get()
            log.warning("the clock of host %s is %.0f s off", host, difference)
            try:
                await self._publish(host, difference)
            except BusError as error:
                log.warning("nobody is told of it: %s", error)

    async def _publish(self, host: str, difference: float) -> None:
        way = "ahead of" if difference > 0 else "behind"
        body = (
            f"The clock of host {self._records.name(host)} is {abs(difference):.0f} seconds {way} the coordinator's."
            " Times that it records are wrong, and operations on its VMs may fail."
        )
        alert = Alert(
            id=str(uuid.uuid4()),
            name=NAME,
            priority=PRIORITY,
            cls="Host",
            obj_uuid=host,
            body=body,
            time=self._clock(),
        )
        await self._bus.publish(ALERT, alert, cls=alert.cls, priority=str(alert.priority), name=alert.name)
