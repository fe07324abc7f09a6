"""How a service changes the database: transactions over the bus, decided on what its replica shows."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from shared.bus.context import current
from shared.bus.interface import Bus
from shared.contracts.db import TRANSACT, Change, Position, Precondition, Transact
from shared.errors import ApiError, DatabaseConflict, internal_error
from shared.replica import Replica
from shared.store import Store

Result = TypeVar("Result")

ATTEMPTS = 20
"""How often a decision is made again after conflicts; then the call fails with INTERNAL_ERROR."""


@dataclass(slots=True)
class CommitTimes:
    """Seconds from a transaction's request to its answer, of those that were made."""

    count: int = 0
    total: float = 0.0
    shortest: float = 0.0
    longest: float = 0.0

    def note(self, seconds: float) -> None:
        self.shortest = min(self.shortest, seconds) if self.count else seconds
        self.longest = max(self.longest, seconds)
        self.total += seconds
        self.count += 1


class Database:
    """Writes go to the database process; `store` is what they are decided on. A write returns when the replica shows
    it.
    """

    def __init__(self, bus: Bus, replica: Replica | None = None) -> None:
        self._bus = bus
        self._replica = replica
        self.term = 0
        """Of the coordinator that writes: once the database has heard from a later one, it refuses this one."""
        self.times = CommitTimes()

    @property
    def store(self) -> Store:
        if self._replica is None:
            raise RuntimeError("this service writes without a replica")
        return self._replica.store

    async def transact(self, changes: Sequence[Change], given: Sequence[Precondition] = ()) -> int:
        """Applies all changes or none; returns the commit's generation. Raises `DatabaseConflict` and the store's
        errors.
        """
        replica = self._replica
        seen = replica.position if replica is not None and replica.ready else None
        request = Transact(changes=list(changes), preconditions=list(given), seen=seen)
        context = msgspec.structs.replace(current.get(), term=self.term)
        begin = time.monotonic()
        try:
            committed = await self._bus.call(TRANSACT, request, context=context)
        except ApiError as error:
            if error.code == "DB_CONFLICT":
                raise DatabaseConflict(*error.params) from None
            raise
        self.times.note(time.monotonic() - begin)
        if replica is not None:
            await replica.wait_generation(committed.generation)
            if replica.lineage.left_out(Position(term=committed.term, generation=committed.generation)):
                raise internal_error("saved by a coordinator that was replaced before anybody else had it: it is lost")
        return committed.generation

    async def decide(
        self, decision: Callable[[Store], tuple[Sequence[Change], Sequence[Precondition], Result]]
    ) -> Result:
        """Optimistic locking: `decision` looks at the rows and says what to change, given which facts.

        When another writer was faster it decides again on newer rows. What it raises ends the attempt.
        """
        for attempt in range(ATTEMPTS):
            seen = self.store.generation
            changes, given, result = decision(self.store)
            if not changes:
                return result
            try:
                await self.transact(changes, given)
                return result
            except DatabaseConflict:
                pause = 0.002 * 2 ** min(attempt, 6)
                if self._replica is not None:
                    await self._replica.reaches(seen + 1, 10 * pause)  # deciding on the same rows again is no use
                await asyncio.sleep(random.uniform(0, pause))
        raise internal_error(f"the database changed {ATTEMPTS} times while this call was being decided")
