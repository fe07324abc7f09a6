"""Stores alerts as rows of the XenAPI class `message`. An alert's id is its row's uuid: twice is the same as once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
import uuid
from threading import Event

from services.alerts.sink import Stopping, TryAgain, Undeliverable
from shared.bus.interface import Bus, BusError
from shared.contracts.alerts import Alert
from shared.contracts.db import TRANSACT, Create, RowAbsent, Transact
from shared.datamodel import model
from shared.errors import ApiError

TIMEOUT = 15.0
"""Seconds that one attempt to store may take, the database's restart included."""


def reference(alert: Alert) -> str:
    return f"OpaqueRef:{alert.id}"


def transaction(alert: Alert) -> Transact:
    """What storing the alert is. Raises `Undeliverable` for what cannot be a message."""
    try:
        canonical = str(uuid.UUID(alert.id)) == alert.id
    except ValueError:
        canonical = False
    if not canonical:
        raise Undeliverable(f"its id {alert.id!r} is not a uuid")
    if alert.cls not in model.enums["cls"].values:
        raise Undeliverable(f"there are no messages about objects of class {alert.cls!r}")
    try:
        timestamp = time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime(alert.time))
    except (OverflowError, ValueError, OSError) as error:
        raise Undeliverable(f"its time {alert.time!r} is none: {error}") from error
    fields = {
        "uuid": alert.id,
        "name": alert.name,
        "priority": alert.priority,
        "cls": alert.cls,
        "obj_uuid": alert.obj_uuid,
        "timestamp": timestamp,
        "body": alert.body,
    }
    ref = reference(alert)
    absent = RowAbsent(cls="message", ref=ref)
    return Transact(changes=[Create(cls="message", ref=ref, fields=fields)], preconditions=[absent])


class MessageSink:
    """Runs in a reader's thread; the transaction runs on the service's event loop.

    A database that is away is waited for as long as it takes. One that refuses the alert is asked `attempts` times.
    """

    kind = "xenapi"
    name = "messages"
    attempts = 10
    retry_first = 0.2
    retry_longest = 30.0

    def __init__(self, bus: Bus, loop: asyncio.AbstractEventLoop) -> None:
        self._bus = bus
        self._loop = loop

    def wants(self, alert: Alert) -> bool:
        return True

    def deliver(self, alert: Alert, stop: Event) -> None:
        request = transaction(alert)
        storing = asyncio.run_coroutine_threadsafe(self._store(request), self._loop)
        while True:
            try:
                storing.result(timeout=0.2)
                return
            except concurrent.futures.TimeoutError:
                if stop.is_set():
                    storing.cancel()
                    raise Stopping from None
            except BusError as error:
                raise TryAgain(f"the database does not answer: {error}", counts=False) from error
            except ApiError as error:
                raise TryAgain(f"the database refused it: {error}") from error

    async def _store(self, request: Transact) -> None:
        try:
            await self._bus.call(TRANSACT, request, timeout=TIMEOUT)
        except ApiError as error:
            if error.code != "DB_CONFLICT":  # else it is stored already: an earlier attempt got through
                raise
