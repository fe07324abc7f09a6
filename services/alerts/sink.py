"""Where alerts go: what a reader hands them to."""

from __future__ import annotations

from threading import Event
from typing import Protocol

from shared.contracts.alerts import Alert


class TryAgain(Exception):
    """Not delivered, perhaps later; the text says why. `counts`: it is one of the attempts the alert has."""

    def __init__(self, text: str, counts: bool = True) -> None:
        super().__init__(text)
        self.counts = counts


class Undeliverable(Exception):
    """This alert will never be delivered; the text says why."""


class Stopping(Exception):
    """The service stops: the alert stays in its queue."""


class Sink(Protocol):
    """`kind`, `name`: as `CONSUMERS` shows them. `attempts`: before an alert is given up.

    `retry_first`, `retry_longest`: seconds between attempts, doubled from one to the other.
    """

    kind: str
    name: str
    attempts: int
    retry_first: float
    retry_longest: float

    def wants(self, alert: Alert) -> bool: ...

    def deliver(self, alert: Alert, stop: Event) -> None:
        """Blocks for less than a heartbeat of the broker connection; the alert is delivered when it returns.

        Raises `TryAgain`, `Undeliverable`, and `Stopping` when it gave up because `stop` was set.
        """
        ...
