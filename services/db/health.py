"""When the redo log fails, and when it is well again: who hears of it, and when it is tried again."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Final, Literal

from shared.bus.interface import Bus, BusError
from shared.contracts.alerts import ALERT, Alert
from shared.store import Store

log = logging.getLogger("db.health")

Policy = Literal["refuse", "continue"]
"""What becomes of commits that the log cannot take: refused, or acknowledged although a power cut would lose them."""

FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 120.0
"""Seconds between attempts to use a log again that commits go on without: doubled from failure to failure."""

SWITCH: Final = "metadata_lun_alerts"
"""Key of `pool.other_config`; "false" keeps the alerts away. (The original wants "true" for any.)"""

BROKEN: Final = ("METADATA_LUN_BROKEN", 3)
HEALTHY: Final = ("METADATA_LUN_HEALTHY", 4)


class Pauses:
    """When to try again what has failed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = 0.0
        self._next = 0.0

    def failed(self) -> None:
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
        self._next = self._clock() + self._pause

    def succeeded(self) -> None:
        self._pause = self._next = 0.0

    @property
    def over(self) -> bool:
        return self._clock() >= self._next


class HealthAlerts:
    """Tells people, once for each change."""

    def __init__(self, bus: Bus, store: Store, kind: str, host: str) -> None:
        self._bus = bus
        self._store = store
        self._kind = kind
        self._host = host

    async def tell(self, healthy: bool, why: str) -> None:
        pools = list(self._store.rows("pool").values())
        if not pools or pools[0]["other_config"].get(SWITCH) == "false":
            return
        name, priority = HEALTHY if healthy else BROKEN
        body = f"Redo log [{self._kind}] of host {self._host}" + (f": {why}" if why else "")
        alert = Alert(
            id=str(uuid.uuid4()),
            name=name,
            priority=priority,
            cls="Pool",
            obj_uuid=pools[0]["uuid"],
            body=body,
            time=time.time(),
        )
        try:
            await self._bus.publish(ALERT, alert, cls="Pool", priority=str(priority), name=name)
        except BusError as error:
            log.error("nobody can be told that %s: %s", body, error)
