"""Where calls and requests pass: each is counted for whoever it matches, and waits for the tokens it costs.

The rows of classes Caller and Rate_limit are followed, so that a change counts from its commit on. What is written
about calls (who called last when, who called for the first time) is collected and written at once now and then: a
client cannot make the database work by calling.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.api import clock
from services.api.decisions.rows import Record
from services.api.rate_limit import costs
from services.api.rate_limit.callers import Callers, Known, Origin, Usage
from services.api.rate_limit.limiter import Limiter, Turn
from shared.contracts.db import Change, Create, Delete, Delta, RowPresent, Update
from shared.errors import ApiError
from shared.store import NULL, Touched

if TYPE_CHECKING:
    from services.api.api import Api
    from services.api.edge.dispatcher import Caller

log = logging.getLogger("api.rate_limit")

WRITE_EVERY: Final = 1.0
"""Seconds."""
NEW_AT_ONCE: Final = 1000
"""Origins that are remembered until they are written; beyond, nobody is registered until the next writing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`registered`: callers that register themselves, at most; 0: nobody does, negative: as many as come."""

    enabled: bool = False
    costs_file: str = ""
    registered: int = 100


class RateLimits:
    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings
        self._costs = costs.read(settings.costs_file) if settings.enabled else {}
        self._limiters: dict[str, Limiter] = {}
        self._new: dict[Origin, Usage] = {}
        self._made: dict[str, Usage] = {}
        self._called: set[str] = set()
        self._wake = asyncio.Event()
        self.callers = Callers()
        api.replica.watch(self._on_commit)

    @property
    def waiting(self) -> int:
        """Calls and requests that are delayed now."""
        return sum(limiter.waiting for limiter in self._limiters.values())

    # ---- the way of every call

    def turn(self, caller: Caller, message: str) -> Turn | None:
        """None: it may go on at once. `message`: as in the costs file; of no message, "". Root on the Unix socket is
        nobody's client.
        """
        if not self._settings.enabled or caller.trusted:
            return None
        origin = Origin(caller.user_agent, caller.address)
        cost = self._costs.get(message, costs.USUAL)
        found = self.callers.matching(origin)
        self._count(origin, found, cost)
        for known in found:
            limiter = self._limiters.get(known.limit)
            if limiter is not None:
                return limiter.turn(cost)
        return None

    def request_turn(self, caller: Caller) -> Turn | None:
        """Of an HTTP request that is no call. One that does not say what it is is not recognised."""
        return self.turn(caller, "") if caller.user_agent and caller.address else None

    def _count(self, origin: Origin, found: tuple[Known, ...], cost: float) -> None:
        now = self.callers.tick()
        usages = [known.usage for known in found]
        if self._is_new(origin, found) and (origin in self._new or len(self._new) < NEW_AT_ONCE):
            usages.append(self._new.setdefault(origin, Usage()))
        for usage in usages:
            usage.calls += 1
            usage.tokens += cost
            usage.last = now
        if usages:
            self._called.update(known.ref for known in found)
            self._wake.set()

    def _is_new(self, origin: Origin, found: tuple[Known, ...]) -> bool:
        exact = any(known.pattern.is_exact for known in found)
        return self._settings.registered != 0 and origin.is_known and not exact

    # ---- rows

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        for item in touched:
            row = None if item.kind == "del" else item.row.fields
            if item.cls == "Caller":
                self.callers.update(item.ref, row, self._made.pop(item.ref, None))
            elif item.cls == "Rate_limit":
                self._limit(item.ref, row)

    def _limit(self, ref: str, row: Record | None) -> None:
        burst, fill = (row["burst_size"], row["fill_rate"]) if row is not None else (0.0, 0.0)
        known = self._limiters.get(ref)
        if burst > 0 and fill > 0:
            if known is None:
                self._limiters[ref] = Limiter(burst, fill)
            else:
                known.reshape(burst, fill)
        elif known is not None:
            del self._limiters[ref]
            known.end()

    # ---- what is written about calls

    async def run(self) -> None:
        """Coordinator only. Begins with what an earlier process registered beyond the limit."""
        self._wake.set()
        while True:
            await self._wake.wait()
            await asyncio.sleep(WRITE_EVERY)
            self._wake.clear()
            changes, given = self._changes()
            if not changes:
                continue
            try:
                await self._api.database.transact(changes, given)
            except ApiError as error:
                log.warning("who called is not written: %s", error)
                for change in changes:
                    self._made.pop(change.ref, None)

    def _changes(self) -> tuple[list[Change], list[RowPresent]]:
        store, now = self._api.store, clock.now()
        called, self._called = self._called, set()
        new, self._new = self._new, {}
        present = [ref for ref in called if store.row("Caller", ref) is not None]
        changes: list[Change] = [Update(cls="Caller", ref=ref, fields={"last_access": now}) for ref in present]
        if self._settings.registered >= 0:
            latest = sorted(new.items(), key=lambda item: item[1].last)[-self._settings.registered :]
            new = dict(latest) if self._settings.registered else {}
            gone = self.callers.surplus(self._settings.registered - len(new))
            changes += [Delete(cls="Caller", ref=ref) for ref in gone]
        changes += [self._created(origin, usage, now) for origin, usage in new.items()]
        return changes, [RowPresent(cls="Caller", ref=ref) for ref in present]

    def _created(self, origin: Origin, usage: Usage, now: str) -> Create:
        ref = f"OpaqueRef:{uuid.uuid4()}"
        self._made[ref] = usage
        fields = {
            "name_label": f"user_agent: {origin.user_agent}, client_ip: {origin.address}",
            "name_description": f"Autogenerated caller for user_agent {origin.user_agent}, client_ip {origin.address}",
            "user_agent": origin.user_agent,
            "client_ip": origin.address,
            "last_access": now,
            "rate_limit": NULL,
            "auto_registered": True,
        }
        return Create(cls="Caller", ref=ref, fields=fields)
