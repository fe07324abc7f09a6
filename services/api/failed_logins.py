"""Failed logins, counted per client and reported once an hour in one alert."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

import msgspec

from services.api import clock
from shared import alerts
from shared.bus.interface import BusError
from shared.errors import ApiError

if TYPE_CHECKING:
    from services.api.api import Api

log = logging.getLogger("api.failed_logins")

PERIOD: Final = 3600.0
NAME: Final = "FAILED_LOGIN_ATTEMPTS"
PRIORITY: Final = 3
WORST: Final = 3
"""Clients that the alert names."""

LONGEST: Final = 128
"""Characters of each text that a client sent."""

CLIENTS: Final = 10_000
"""Clients that are told apart; whoever comes after that many counts as unknown."""


class Client(msgspec.Struct, frozen=True):
    """What is known of who failed to log in; "" for what is not. The order is that of the alert's elements."""

    username: str = ""
    originator: str = ""
    useragent: str = ""
    ip: str = ""


@dataclass(slots=True)
class _Count:
    number: int = 0
    last: float = 0.0


class FailedLogins:
    """Since the last report."""

    def __init__(self) -> None:
        self._clients: dict[Client, _Count] = {}
        self._unknown = 0

    def note(self, client: Client, now: float) -> None:
        """`now`: Unix time."""
        shown = Client(*(_readable(text) for text in msgspec.structs.astuple(client)))
        if shown == Client() or (shown not in self._clients and len(self._clients) >= CLIENTS):
            self._unknown += 1
            return
        count = self._clients.setdefault(shown, _Count())
        count.number += 1
        count.last = now

    def report(self) -> str:
        """The alert's body: how many in all, the clients that failed most often, how many came from nobody knows whom.
        "" when nobody failed.
        """
        total = self._unknown + sum(count.number for count in self._clients.values())
        if not total:
            return ""
        worst = sorted(self._clients.items(), key=lambda item: (-item[1].number, -item[1].last))[:WORST]
        known = "".join(_known(client, count) for client, count in worst)
        unknown = f"<unknown>{self._unknown}</unknown>" if self._unknown else ""
        return f"<body><total>{total}</total>{known}{unknown}</body>"

    def add(self, other: FailedLogins) -> None:
        """Counts those too."""
        self._unknown += other._unknown
        for client, theirs in other._clients.items():
            count = self._clients.setdefault(client, _Count())
            count.number += theirs.number
            count.last = max(count.last, theirs.last)


def _readable(text: str) -> str:
    """What XML can carry of it."""
    return "".join(character for character in text[:LONGEST] if character.isprintable())


def _known(client: Client, count: _Count) -> str:
    told = {**msgspec.structs.asdict(client), "number": str(count.number), "date": clock.stamp(count.last)}
    elements = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in told.items() if text)
    return f"<known>{elements}</known>"


async def report(api: Api, now: float) -> None:
    """Sends the alert, if there is anything to tell. When it raises (`BusError`, HOST_STILL_BOOTING) all is kept."""
    body = api.failed_logins.report()
    if not body:
        return
    pool = str(api.pool()["uuid"])
    alert = alerts.new(NAME, PRIORITY, "Pool", pool, body, at=now)
    told, api.failed_logins = api.failed_logins, FailedLogins()
    try:
        await alerts.publish(api.bus, alert)
    except BusError:
        api.failed_logins.add(told)
        raise


async def run(api: Api) -> None:
    """Once an hour, as long as the process runs."""
    while True:
        await asyncio.sleep(PERIOD)
        try:
            await report(api, time.time())
        except ApiError as error:
            log.warning("failed logins are reported later: %s", error)
