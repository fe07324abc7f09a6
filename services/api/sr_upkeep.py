"""What the coordinator does to SRs by itself: scans those that want it, keeps an eye on how full they are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from services.api.api import Api
from services.api.decisions import sr_alarms
from services.api.decisions.liveness import is_live
from services.api.decisions.rows import Record, Rows
from services.api.decisions.sm_features import features, is_v1, plugged_pbds
from services.api.decisions.vdi_rows import DIRTY
from services.api.storage_hosts import restat
from services.api.subcalls import perform_alone
from shared import alerts
from shared.bus.interface import BusError
from shared.errors import ApiError

log = logging.getLogger("api.sr")

EVERY: Final = 30.0
"""Seconds between two looks at which SRs want to be scanned, unless the coordinator's row says otherwise."""
INTERVAL: Final = "auto-scan-interval"
AUTO_SCAN: Final = "auto-scan"
SCANS_AT_ONCE: Final = 32
FIGURES_EVERY: Final = 60.0
"""Seconds between two questions how full an SR is."""


def wants_scan(rows: Rows, sr: Record) -> bool:
    wanted = sr["other_config"].get(AUTO_SCAN) == "true" or DIRTY in sr["other_config"]
    return wanted and _reachable(rows, sr)


def wants_figures(rows: Rows, sr: Record) -> bool:
    """A SMAPIv1 driver is run only if it says that it has figures: others need long for them."""
    able = features(rows, sr)
    return ("SR_STATS" in able or ("SR_UPDATE" in able and not is_v1(rows, sr))) and _reachable(rows, sr)


def _reachable(rows: Rows, sr: Record) -> bool:
    return any(is_live(rows, pbd["host"]) for pbd in plugged_pbds(rows, sr))


def interval(host: Record | None) -> float:
    """Seconds; from the coordinator's row."""
    text = host["other_config"].get(INTERVAL, "") if host is not None else ""
    try:
        return max(float(text), 1.0) if text else EVERY
    except ValueError:
        return EVERY


class SrUpkeep:
    """Coordinator only. One scan, and one question, of an SR at a time."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._room = asyncio.Semaphore(SCANS_AT_ONCE)
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._alarms: dict[str, sr_alarms.Alarm] = {}

    async def run(self) -> None:
        """Until cancelled, with what it has begun."""
        figures = time.monotonic()
        try:
            while True:
                host = self._api.store.row("host", self._api.host_ref)
                await asyncio.sleep(interval(host))
                self.begin_scans()
                if time.monotonic() - figures >= FIGURES_EVERY:
                    figures = time.monotonic()
                    self.begin_figures()
        finally:
            running = list(self._busy.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def begin_scans(self) -> list[asyncio.Task[None]]:
        return self._begin("scan", wants_scan, self._scan)

    def begin_figures(self) -> list[asyncio.Task[None]]:
        known = self._api.store.rows("SR")
        self._alarms = {sr: alarm for sr, alarm in self._alarms.items() if sr in known}
        return self._begin("figures", wants_figures, self._look)

    def _begin(
        self, what: str, wanted: Callable[[Rows, Record], bool], work: Callable[[str], Coroutine[Any, Any, None]]
    ) -> list[asyncio.Task[None]]:
        begun = []
        for sr, row in self._api.store.rows("SR").items():
            if (what, sr) in self._busy or not wanted(self._api.store, row):
                continue
            task = asyncio.create_task(self._carry_out(what, sr, work), name=f"{what} of SR {row['uuid']}")
            self._busy[what, sr] = task
            task.add_done_callback(partial(self._over, (what, sr)))
            begun.append(task)
        return begun

    def _over(self, key: tuple[str, str], _: asyncio.Task[None]) -> None:
        self._busy.pop(key, None)

    async def _carry_out(self, what: str, sr: str, work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        try:
            async with self._room:
                await work(sr)
        except ApiError as error:
            log.warning("%s of SR %s: %s", what, sr, error)

    async def _scan(self, sr: str) -> None:
        await perform_alone(self._api, "SR.scan", sr)

    async def _look(self, sr: str) -> None:
        await restat(self._api, sr)
        row = self._api.store.row("SR", sr)
        if row is None:
            return
        perfmon = row["other_config"].get(sr_alarms.KEY, "")
        wanted = sr_alarms.threshold(perfmon)
        if wanted is None or row["physical_size"] <= 0:
            self._alarms.pop(sr, None)
            return
        value = row["physical_utilisation"] / row["physical_size"]
        if self._alarms.setdefault(sr, sr_alarms.Alarm()).observe(wanted, value, time.monotonic()):
            await self._tell(row, wanted, sr_alarms.body(value, perfmon))

    async def _tell(self, sr: Record, wanted: sr_alarms.Threshold, body: str) -> None:
        alert = alerts.new(sr_alarms.MESSAGE, wanted.priority, "SR", sr["uuid"], body)
        try:
            await alerts.publish(self._api.bus, alert)
        except BusError as error:
            log.warning("nobody hears that SR %s is full: %s", sr["uuid"], error)
