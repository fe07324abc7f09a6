"""How long a client may take over a request, and others over their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from services.api.edge.endpoint import Limits

TURN: Final = 0.005
"""Seconds of answering what came together, or of sending, after which others get their turn."""


class Clock:
    """Runs only while a request is incomplete, or while the client gets time to read an error.

    `first`: no request of the connection was complete yet. `heard`: when it was last heard of, by the loop's clock.
    """

    __slots__ = ("_limits", "_loop", "_opened", "_timer", "first", "heard")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._opened = self.heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.first = True

    def await_request(self, too_late: Callable[[], None]) -> None:
        """Calls it once the client takes too long over its request."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._due(), self._look, too_late)

    def hear(self) -> None:
        """The client has sent a part of a request."""
        self.heard = self._loop.time()

    def complete(self) -> None:
        """A request is there."""
        if self._timer is not None:
            self.stop()
        self.heard = self._loop.time()
        self.first = False

    def linger(self, close: Callable[[], None]) -> None:
        """Calls it when the client has had its time to read an error."""
        self.stop()
        self._timer = self._loop.call_later(self._limits.linger, close)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> float:
        limits = self._limits
        if self.first:
            return min(self.heard + limits.first_read, self._opened + limits.first_total)
        return self.heard + limits.stall

    def _look(self, too_late: Callable[[], None]) -> None:
        self._timer = None
        if self._loop.time() < self._due():
            self.await_request(too_late)
        else:
            too_late()
