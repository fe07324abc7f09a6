"""How a service changes the database: transactions over the bus, decided on what its replica shows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.bus.interface import Bus
from shared.contracts.db import TRANSACT, Change, Precondition, Transact
from shared.errors import ApiError, DatabaseConflict, internal_error
from shared.replica import Replica
from shared.store import Store

Result = TypeVar("Result")

ATTEMPTS = 20
"""How often a decision is made again after conflicts; then the call fails with INTERNAL_ERROR."""


class Database:
    """Writes go to the database process; `store` is what they are decided on. A write returns when the replica shows
    it.
    """

    def __init__(self, bus: Bus, replica: Replica | None = None) -> None:
        self._bus = bus
        self._replica = replica

    @property
    def store(self) -> Store:
        if self._replica is None:
            raise RuntimeError("this service writes without a replica")
        return self._replica.store

    async def transact(self, changes: Sequence[Change], given: Sequence[Precondition] = ()) -> int:
        """Applies all changes or none; returns the commit's generation. Raises `DatabaseConflict` and the store's
        errors.
        """
        try:
            committed = await self._bus.call(TRANSACT, Transact(changes=list(changes), preconditions=list(given)))
        except ApiError as error:
            if error.code == "DB_CONFLICT":
                raise DatabaseConflict(*error.params) from None
            raise
        if self._replica is not None:
            await self._replica.wait_generation(committed.generation)
        return committed.generation

    async def decide(
        self, decision: Callable[[Store], tuple[Sequence[Change], Sequence[Precondition], Result]]
    ) -> Result:
        """Optimistic locking: `decision` looks at the rows and says what to change, given which facts.

        When another writer was faster it decides again on newer rows. What it raises ends the attempt.
        """
        for attempt in range(ATTEMPTS):
            changes, given, result = decision(self.store)
            if not changes:
                return result
            try:
                await self.transact(changes, given)
                return result
            except DatabaseConflict:
                await asyncio.sleep(random.uniform(0, 0.002 * 2 ** min(attempt, 6)))
        raise internal_error(f"the database changed {ATTEMPTS} times while this call was being decided")
