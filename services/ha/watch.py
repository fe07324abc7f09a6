"""The coordinator's watch over all hosts: heartbeats in, `host_metrics.live` out."""

from __future__ import annotations

import asyncio
import logging

from services.ha import liveness
from services.ha.liveness import Seen
from services.ha.records import HostRecords
from shared.bus.contract import Empty
from shared.bus.interface import Bus
from shared.contracts.ha import HEARTBEAT, Heartbeat, LivenessTable
from shared.errors import ApiError

log = logging.getLogger("ha.watch")

LOOK_EVERY = 0.25
"""Seconds between two looks at the table, beside those that a first heartbeat causes."""


class Watch:
    def __init__(self, bus: Bus, records: HostRecords, limit: float) -> None:
        self._bus = bus
        self._records = records
        self._limit = limit
        self._seen: dict[str, Seen] = {}
        self._listening = self._now()
        self._look = asyncio.Event()
        self._told = ""

    async def start(self) -> None:
        self._bus.on_reconnect(self._reconnected)
        await self._bus.subscribe(HEARTBEAT, self._heard)
        self._listening = self._now()

    async def liveness(self, _: Empty) -> LivenessTable:
        now = self._now()
        return LivenessTable(hosts=liveness.report(self._verdicts(now), self._seen, now))

    async def run(self) -> None:
        """Until cancelled: writes what has changed. What cannot be written is tried again at the next look."""
        while True:
            if self._bus.connected:
                await self._record()
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._look.wait()
            except TimeoutError:
                continue
            self._look.clear()

    async def _record(self) -> None:
        for host, live in liveness.changes(self._verdicts(self._now()), self._records.live()).items():
            try:
                await self._records.set_live(host, live)
            except ApiError as error:
                if str(error) != self._told:
                    self._told = str(error)
                    log.warning("cannot record that host %s is %s: %s", host, "live" if live else "not live", error)
                return
            self._told = ""
            log.warning("host %s is %s", host, "live" if live else "not live any more")

    def _heard(self, beat: Heartbeat, _: str) -> None:
        if beat.host not in self._seen:
            self._look.set()
        self._seen = liveness.heard(self._seen, beat, self._now())

    async def _reconnected(self) -> None:
        """Heartbeats were missed: silence counts from now on."""
        self._listening = self._now()

    def _verdicts(self, now: float) -> dict[str, bool | None]:
        """While the bus is away nobody can be heard, so nobody is found to be silent."""
        listening = self._listening if self._bus.connected else now
        hosts = {*self._records.live(), *self._seen}
        return liveness.verdicts(self._seen, hosts, listening, now, self._limit)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
