"""How long a primary may answer its callers without hearing again that it is the one whom they reach.

A primary cannot know that it was cut off, or that its process stood still, while another one was promoted. So it
answers a commit only within a short time after the broker has brought it, through the queue `db` itself, a request of
its own. A promotion deletes that queue and lets this time pass before the new term begins: whatever the old primary has
answered by then was published before, and is there to be taken over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

LEASE: Final = 1.0
"""Seconds, from when the request was sent."""
RENEW: Final = 0.25
"""Seconds between two of them."""


def boot_clock() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lost(Exception):
    """This process is not primary any more."""


class Lease:
    """`valid` is asked before each answer; who finds it expired waits in `held`."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or boot_clock
        self._until = float("-inf")
        self._over = False
        self._changed = asyncio.Event()

    @property
    def valid(self) -> bool:
        return not self._over and self.clock() < self._until

    def renew(self, sent: float) -> None:
        """A request that was sent then has come back through the queue."""
        self._until = max(self._until, sent + LEASE)
        self._wake()

    def grant(self) -> None:
        """Whoever takes over does so from where this process ends: all that is committed may be answered."""
        self._until = float("inf")
        self._wake()

    def suspend(self) -> None:
        """Nothing is answered until it is renewed."""
        self._until = float("-inf")

    def begin(self) -> None:
        """This process is primary from now on."""
        self._over = False
        self.suspend()

    def end(self) -> None:
        """This process is primary no more: whoever waits gets `Lost`."""
        self._over = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def held(self) -> None:
        """Until it is valid. Raises `Lost` when it is over."""
        while not self.valid:
            if self._over:
                raise Lost
            await self._changed.wait()
