"""Calls wait for tokens in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from services.api.rate_limit.bucket import TokenBucket

Turn = asyncio.Future[None]
"""Done when the call may go on. Cancelled, it gives its place up and costs nothing."""

LEAST_WAIT: Final = 0.001
"""Seconds: clocks are not exact, and a timer that rings a little early must not ring again at once."""


class Limiter:
    def __init__(self, burst: float, fill: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._bucket = TokenBucket(burst, fill, self._loop.time())
        self._waiting: deque[tuple[float, Turn]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return sum(not turn.cancelled() for _, turn in self._waiting)

    def turn(self, cost: float) -> Turn | None:
        """None: at once. Nobody overtakes those who wait already."""
        if not self._waiting and self._bucket.take(cost, self._loop.time()):
            return None
        turn = self._loop.create_future()
        self._waiting.append((cost, turn))
        if self._timer is None:
            self._serve()
        return turn

    def reshape(self, burst: float, fill: float) -> None:
        """Another limit from now on, its bucket full; who waits keeps the place."""
        if (burst, fill) == (self._bucket.burst, self._bucket.fill):
            return
        self._bucket = TokenBucket(burst, fill, self._loop.time())
        self._serve()

    def end(self) -> None:
        """There is no limit any more: everybody who waits may go on."""
        self._stop_timer()
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    def _serve(self) -> None:
        """Lets through whom the tokens are there for, and sets the timer for the next."""
        self._stop_timer()
        now = self._loop.time()
        while self._waiting:
            cost, turn = self._waiting[0]
            if not turn.done():
                if not self._bucket.take(cost, now):
                    pause = max(self._bucket.wait(cost, now), LEAST_WAIT)
                    self._timer = self._loop.call_later(pause, self._serve)
                    return
                turn.set_result(None)
            self._waiting.popleft()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
