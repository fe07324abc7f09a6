"""When those who wait are told: in rounds, a few at a time.

A round begins in the next turn of the loop, so that what one turn commits is one answer, and covers all who are due by
then. Between two parts of it others are served. After a round in which many were told there is a rest, twice as long as
the round: telling takes at most half of the time, however fast the changes come, and they come together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

Group = TypeVar("Group")
Told = TypeVar("Told")

PART: Final = 64
"""Calls told in one part of a round. A round of more than that is one of many."""

GAP: Final = 0.05
"""Seconds from the beginning of a round of many to the next round, at least."""

LONGEST_GAP: Final = 2.0

Tell = tuple["asyncio.Future[Told | None]", Told]
"""Who is told what."""


class Rounds(Generic[Group, Told]):
    """`look`: whom of a group to tell what, once its turn has come. `gap`: seconds between two rounds of many."""

    def __init__(self, look: Callable[[Group], Iterable[Tell[Told]]]) -> None:
        self.gap = GAP
        self._look = look
        self._due: dict[Group, None] = {}
        """For the next round; `_round`: of this one, not looked at yet; `_telling`: looked at."""
        self._round: deque[Group] = deque()
        self._telling: deque[Tell[Told]] = deque()
        self._begun: float | None = None
        self._told = 0
        self._rest_until = 0.0
        self._scheduled: asyncio.Handle | None = None
        self._resting = False

    def add(self, group: Group) -> None:
        """Its members are told in the next round."""
        self._due[group] = None
        self._schedule()

    def add_at_once(self, group: Group) -> None:
        """Its members are told in the next turn of the loop, whatever rest there is."""
        self._telling.extend(self._look(group))
        self._schedule()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        at_once = bool(self._telling or self._round)
        if self._scheduled is not None and self._resting and at_once:
            self._scheduled.cancel()
            self._scheduled = None
        if self._scheduled is None and (at_once or self._due):
            rest = 0.0 if at_once else self._rest_until - time.monotonic()
            self._resting = rest > 0
            run = self._tell_some
            self._scheduled = loop.call_later(rest, run) if self._resting else loop.call_soon(run)

    def _tell_some(self) -> None:
        """One part of a round."""
        self._scheduled = None
        if self._begun is None:
            self._begun, self._told = time.monotonic(), 0
            if self._begun >= self._rest_until:
                self._round.extend(self._due)
                self._due.clear()
        for _ in range(PART):
            if self._telling:
                tell(*self._telling.popleft())
                self._told += 1
            elif self._round:
                self._telling.extend(self._look(self._round.popleft()))
            else:
                break
        if not self._telling and not self._round:
            self._end(self._begun)
        self._schedule()

    def _end(self, begun: float) -> None:
        self._begun = None
        self.gap = GAP
        if self._told > PART:
            self.gap = min(max(GAP, 2 * (time.monotonic() - begun)), LONGEST_GAP)
            self._rest_until = begun + self.gap


def tell(call: asyncio.Future[Told | None], what: Told | None) -> None:
    """Unless it has been told, or has gone away."""
    if not call.done():
        call.set_result(what)
