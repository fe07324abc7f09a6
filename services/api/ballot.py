"""A host's vote for a new coordinator: it agrees to one at a time (`database-pool-ha` 3.6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from services.api import clock
from shared.errors import ApiError

VALID: Final = 600.0
"""Seconds for which a host stands by its word. Whoever has not come back by then is not expected to."""


class Ballot:
    """`now`: Unix time."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._promised: str | None = None
        self._at = 0.0

    def propose(self, address: str) -> None:
        """Raises HA_ABORT_NEW_MASTER [reason] while another proposal counts."""
        now = self._now()
        if self._promised not in (None, address) and now - self._at <= VALID:
            raise ApiError(
                "HA_ABORT_NEW_MASTER",
                f"the host has agreed to {self._promised} as coordinator at {clock.stamp(self._at)}",
            )
        self._promised, self._at = address, now

    def commit(self, address: str) -> None:
        """The vote has been used. Raises HA_ABORT_NEW_MASTER [reason] if it was not for that address."""
        if self._promised != address:
            promised = "to nobody" if self._promised is None else f"to {self._promised}"
            raise ApiError("HA_ABORT_NEW_MASTER", f"the host has agreed {promised} as coordinator, not to {address}")
        self._promised = None

    def abort(self) -> None:
        """Whatever it had agreed to."""
        self._promised = None
