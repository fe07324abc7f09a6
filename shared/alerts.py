"""Telling people: what an alert is made of, and how it goes to the alerts service."""

from __future__ import annotations

import time
import uuid

from shared.bus.interface import Bus
from shared.contracts.alerts import ALERT, Alert


def new(name: str, priority: int, cls: str, obj_uuid: str, body: str, *, at: float | None = None) -> Alert:
    """Fields as in `Alert`. `at`: Unix time; now, if it is not said."""
    return Alert(
        id=str(uuid.uuid4()),
        name=name,
        priority=priority,
        cls=cls,
        obj_uuid=obj_uuid,
        body=body,
        time=time.time() if at is None else at,
    )


async def publish(bus: Bus, alert: Alert) -> None:
    """Raises `BusError`."""
    await bus.publish(ALERT, alert, cls=alert.cls, priority=str(alert.priority), name=alert.name)
