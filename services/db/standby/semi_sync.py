"""Semi-synchronous commits: answered when as many standbys as the option says have them on stable storage.

Standbys that are missing are waited for, up to a limit. What happens then is a policy: by `continue` commits go on
without them, at once, until enough of them have caught up, and people are told; by `refuse` their callers are told that
the result is unknown, and new commits are refused before anything is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from shared.contracts.db import DurableAt
from shared.errors import internal_error

Policy = Literal["continue", "refuse"]

NAMES: Final = ("DATABASE_STANDBYS_MISSING", "DATABASE_STANDBYS_BACK")
"""Alerts when commits begin to go on without standbys, and when they wait for them again."""


@dataclass(slots=True)
class _Waiting:
    generation: int
    done: asyncio.Future[None]


class SemiSync:
    """`wanted`: standbys that must have a commit; 0: nobody is waited for. `timeout`: seconds.

    `on_change` hears the reason when commits cease to wait, and "" when they wait again.
    """

    def __init__(
        self,
        wanted: int,
        timeout: float = 2.0,
        policy: Policy = "continue",
        on_change: Callable[[str], None] | None = None,
    ) -> None:
        self.wanted = wanted
        self.degraded = ""
        self._timeout = timeout
        self._policy = policy
        self._on_change = on_change
        self.have: dict[str, int] = {}
        """By host: the newest generation that it has durably."""
        self._waiting: list[_Waiting] = []
        self._newest = 0

    def begin(self) -> None:
        """Of a new term no standby has anything."""
        self.have.clear()
        self._newest = 0
        self._change("")

    def admit(self) -> None:
        """Before a commit. Raises INTERNAL_ERROR when it could not be answered: nothing is saved."""
        if self.degraded and self._policy == "refuse":
            raise internal_error(f"not saved, nothing changed: {self.degraded}")

    def heard(self, report: DurableAt) -> None:
        """Of the present term."""
        self.have[report.host] = max(report.generation, self.have.get(report.host, 0))
        reached = self.reached
        for waiting in self._waiting:
            if waiting.generation <= reached and not waiting.done.done():
                waiting.done.set_result(None)
        self._waiting = [waiting for waiting in self._waiting if not waiting.done.done()]
        if self.degraded and reached >= self._newest:
            self._change("")

    def end(self) -> None:
        """This process is primary no more: nobody is waited for. What that means for a commit, others decide."""
        for waiting in self._waiting:
            if not waiting.done.done():
                waiting.done.set_result(None)
        self._waiting.clear()

    def gone(self, host: str) -> None:
        """A standby that does not report any more. What it has it has: it counts for older commits."""
        self.have.pop(host, None)

    @property
    def reached(self) -> int:
        """The newest generation that enough standbys have."""
        have = sorted(self.have.values(), reverse=True)
        return have[self.wanted - 1] if len(have) >= self.wanted else 0

    async def wait(self, generation: int) -> None:
        """Until enough standbys have that commit, or it goes on without them. Raises INTERNAL_ERROR by `refuse`."""
        if not self.wanted:
            return
        self._newest = max(self._newest, generation)
        if self.reached >= generation:
            return
        if not self.degraded:
            waiting = _Waiting(generation, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            try:
                async with asyncio.timeout(self._timeout):
                    await waiting.done
                return
            except TimeoutError:
                have = sum(held >= generation for held in self.have.values())
                self._change(f"{have} of {self.wanted} standbys have generation {generation} after {self._timeout} s")
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
        if self._policy == "refuse":
            raise internal_error(f"saved on this host, but the result is unknown: {self.degraded}")

    def _change(self, why: str) -> None:
        if bool(why) is bool(self.degraded):
            return
        self.degraded = why
        if self._on_change is not None:
            self._on_change(why)
