"""How this process becomes primary: handed over to, or by force.

By force, the old primary being dead, cut off or deaf:

1. ask all others; promise, durably, a term above all that they have; ask again: whoever sees another process that
   promised as much stands back, so of two at most one goes on;
2. delete the queue `db`: its consumer, if it lives, finds the promise before it may consume again, and waits for what
   comes of it;
3. fetch what another process has and this one lacks; wait until the old primary's lease is over, unless it says itself
   that it has stopped, or its queue is gone with its connection; fetch once more;
4. begin the term in the own log: that is the decision;
5. commit `pool.master` as the first commit of the term, which also announces it; take requests.

Until 4 everything can be given up: the promise is taken back, and an old primary that lives goes on. A process that
dies before 4 finds its promise when it is started again, and tries once more; one that dies after 4 starts as primary.
If its machine never comes back, any other process can be promoted: the promise was only its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from services.db.redo.interface import RedoLogError
from services.db.standby import choice
from services.db.standby.follower import Follower
from services.db.standby.lease import LEASE
from services.db.standby.peers import Peers
from services.db.standby.rows import Rows
from shared.bus.contract import Empty
from shared.bus.interface import Bus
from shared.contracts import db as contract
from shared.errors import ApiError, internal_error

log = logging.getLogger("db.standby")

READY: Final = 30.0
"""Seconds that a planned promotion's rows get to catch up while the primary still works."""
REST: Final = 5.0
"""Seconds for what it has committed since."""
ASK: Final = 0.1
"""Seconds between two questions whether the old primary has stopped."""


class Promotion:
    """`own`: uuids of this process's hosts. What it raises leaves the rows as they were."""

    def __init__(self, bus: Bus, rows: Rows, peers: Peers, follower: Follower, own: frozenset[str]) -> None:
        self._bus = bus
        self._rows = rows
        self._peers = peers
        self._follower = follower
        self._own = own

    def describe(self, role: str = "promoting") -> contract.DbRole:
        rows = self._rows
        return contract.DbRole(
            host=rows.host,
            role=role,
            term=rows.store.term,
            generation=rows.store.generation,
            durable=rows.durable,
            promised=rows.kept.kept.promised,
        )

    def others(self) -> list[str]:
        """Hosts that may have a process of the database."""
        listed = {str(row["uuid"]) for row in self._rows.store.rows("host").values()}
        return sorted((listed | set(self._rows.kept.kept.hosts)) - self._own)

    async def planned(self) -> str:
        """The primary hands over. Returns the term's source when the term has begun. Raises INTERNAL_ERROR."""
        rows = self._rows
        await self._follower.follow_now()
        primary = await self._bus.call(contract.DB_STATUS, Empty(), timeout=REST)
        await self._follower.reach(primary.generation, READY)
        resigned = await self._bus.call(contract.RESIGN, contract.Resign(host=rows.host))
        if resigned.generation > rows.store.generation:
            if primary.host:
                await self._follower.catch_up(primary.host)
            await self._follower.reach(resigned.generation, REST)
        if rows.store.generation != resigned.generation:
            raise internal_error(f"the rows are at {rows.store.generation}, the primary ended at {resigned.generation}")
        await self._begin(resigned.term + 1, forced=False)
        return primary.host

    async def forced(self) -> str:
        """Nobody is asked for leave. Returns the host whose rows were the newest. Raises INTERNAL_ERROR."""
        rows = self._rows
        try:
            before = await self._peers.roles(self.others())
            term = choice.next_term(max(rows.store.term, self._peers.highest), before)
            await rows.promise(term)
            others = await self._peers.roles([role.host for role in before])
            if (rival := choice.rival(rows.host, term, others)) is not None:
                raise internal_error(f"host {rival.host} is about to begin term {rival.term}")
            evicted = time.monotonic()
            await self._bus.evict(contract.TRANSACT.service)
            source = await self._fetch(before)
            await self._wait_for_the_end(evicted, [role.host for role in before])
            source = await self._fetch(before) or source
            await self._begin(term, forced=True)
        except BaseException:
            await rows.withdraw()
            raise
        return source or rows.host

    async def _fetch(self, known: list[contract.DbRole]) -> str:
        """What somebody else has and we lack. Returns the host that had it, "" for nobody."""
        others = await self._peers.roles([role.host for role in known])
        best = choice.newest([*others, self.describe()])
        if best is None or best.host == self._rows.host or not choice.is_ahead(best, self.describe()):
            return ""
        await self._follower.catch_up(best.host)
        await self._rows.committer.wait_durable(self._rows.store.generation)
        return best.host

    async def _wait_for_the_end(self, evicted: float, hosts: list[str]) -> None:
        """Until the old primary can have nothing left to answer."""
        store = self._rows.store
        pools = list(store.rows("pool").values())
        master = store.row("host", pools[0]["master"]) if pools else None
        suspect = self._follower.primary or (str(master["uuid"]) if master is not None else "")
        while (left := evicted + LEASE - time.monotonic()) > 0:
            if suspect in hosts:
                answers = await self._peers.roles([suspect], min(left, LEASE))
                if answers and answers[0].role not in ("primary", "starting"):
                    return
            elif suspect and not await self._is_silent(suspect, left):
                return
            await asyncio.sleep(min(ASK, max(0.0, evicted + LEASE - time.monotonic())))

    async def _is_silent(self, host: str, left: float) -> bool:
        """False: it has no connection to the broker, and an answer of it can reach nobody."""
        try:
            await self._bus.call(contract.DB_ROLE, Empty(), host=host, timeout=left)
        except ApiError as error:
            return error.code != "HOST_OFFLINE"
        return True

    async def _begin(self, term: int, forced: bool) -> None:
        await self._follower.halt()
        try:
            await self._rows.begin_term(term, forced)
        except (OSError, RedoLogError, ApiError) as error:
            self._follower.go_on()
            raise internal_error(f"term {term} cannot be written down: {error}") from error
        log.warning(
            "this host's database is primary now",
            extra={"term": term, "generation": self._rows.store.generation, "forced": forced},
        )
