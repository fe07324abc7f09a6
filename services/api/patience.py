"""How long what must be written is offered to a database that is away, or cannot write for the moment."""

from __future__ import annotations

from typing import Final

from shared.bus.interface import BusError, Unsendable
from shared.errors import ApiError

ATTEMPTS: Final = 12
"""With the pauses between, some minutes."""


def pause(attempt: int) -> float:
    """Seconds to wait after that attempt; the first is 0."""
    return min(0.1 * 2.0**attempt, 5.0)


def may_pass(problem: ApiError) -> bool:
    """Whether the same may be written later: nobody answered, the disk was full, somebody else was quicker."""
    if isinstance(problem, Unsendable):
        return False
    return isinstance(problem, BusError) or problem.code in ("INTERNAL_ERROR", "DB_CONFLICT")
