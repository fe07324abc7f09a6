"""What a primary does besides committing: proves that it still is the one, and looks after its standbys."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from services.db.standby import choice
from services.db.standby.choice import Standing
from services.db.standby.lease import LEASE, RENEW, Lease, Lost
from services.db.standby.peers import Peers
from services.db.standby.rows import Rows
from services.db.standby.semi_sync import SemiSync
from services.db.transaction import persistent_part
from shared.bus.context import CallContext
from shared.bus.contract import Empty
from shared.bus.interface import Bus, NotHere
from shared.contracts import db as contract
from shared.errors import ApiError, DatabaseConflict, internal_error

log = logging.getLogger("db.standby")

REPORTED: Final = 7.0
"""Seconds after its last report that a standby is taken for gone."""

SETTLE: Final = 3.0
"""Seconds that standbys get to come back to a broker that all have lost, before they are not asked who is primary."""

AGAIN: Final = 0.1
"""Seconds between two questions to a process that is about to begin a term."""

PROMISE: Final = 10.0
"""Seconds that such a process may be silent until it is taken for dead."""

REMEMBERED: Final = 20_000
"""Commits that standbys have to have, of which the callers wait."""

CHOSEN: Final = "db_standbys"
"""Key of `pool.other_config`: uuids of the hosts that keep the database, separated by commas."""


Done = TypeVar("Done")


@dataclass(slots=True)
class _Report:
    follow: contract.Follow
    at: float


class Primary:
    """One term of office: from the moment this process may take requests until it may not.

    `own`: uuids of this process's hosts. `wanted`: how many standbys persist. `replaced` is set when another process
    has begun a later term.
    """

    def __init__(
        self,
        bus: Bus,
        rows: Rows,
        peers: Peers,
        own: Iterable[str],
        wanted: int,
        semi_sync: SemiSync,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease = Lease()
        self.semi_sync = semi_sync
        self.replaced = asyncio.Event()
        self.confirmed = rows.store.generation
        """The newest commit when it was last heard that this process is primary."""
        self._bus = bus
        self._rows = rows
        self._peers = peers
        self._own = frozenset(own)
        self._wanted = wanted
        self._clock = clock
        self._process = uuid.uuid4().hex
        self._open = False
        self._unsure = True
        """The queue was taken, once more, and nobody has been asked since whether that was right."""
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._reports: dict[str, _Report] = {}
        self._replicated: OrderedDict[int, None] = OrderedDict()
        """Generations of commits that have to reach standbys."""
        semi_sync.begin()

    # ---- requests

    async def transact(self, request: contract.Transact, context: CallContext) -> contract.Committed:
        """Raises what `perform` and the committer do, and INTERNAL_ERROR where standbys are missing."""
        return await self.perform(lambda: self._commit(request, context))

    async def _commit(self, request: contract.Transact, context: CallContext) -> contract.Committed:
        committer = self._rows.committer
        if not committer.knows(context.request):
            self._admit(request)
            self._check_seen(request.seen)
        committed = await committer.transact(
            request,
            request_id=context.request,
            task=context.task or context.origin,
            session=context.session,
        )
        if committed.generation in self._replicated and self._open:
            await self.semi_sync.wait(committed.generation)
        return committed

    async def perform(self, work: Callable[[], Awaitable[Done]]) -> Done:
        """Answers, or refuses, when nobody can have taken this process's place before. Raises `NotHere` where another
        process has: what was done here and not answered, it has or it has not, but it knows.
        """
        if not self._open:
            raise NotHere
        self._running += 1
        self._idle.clear()
        try:
            try:
                done = await work()
            except ApiError:
                await self._held()
                raise
            await self._held()
            return done
        except Lost:
            raise NotHere from None
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def _admit(self, request: contract.Transact) -> None:
        """Raises INTERNAL_ERROR where standbys are missing that a commit would have to wait for."""
        tables = self._rows.store.tables
        if any(change.cls in tables and tables[change.cls].cls.persist for change in request.changes):
            self.semi_sync.admit()

    def _check_seen(self, seen: contract.Position | None) -> None:
        """Raises DB_CONFLICT for what was decided on rows that are no part of the history any more."""
        if seen is not None and not self._rows.lineage.includes(seen, self._rows.store.generation):
            raise DatabaseConflict(-1, "pool", "", "")

    async def _held(self) -> None:
        while not (self.lease.valid and self._bus.connected):
            if not self._bus.connected:
                self.lease.suspend()
            await self.lease.held()

    def published(self, deltas: Sequence[contract.Delta]) -> None:
        """Commits are on their way to the standbys."""
        if not self.semi_sync.wanted:
            return
        for delta in deltas:
            if persistent_part(self._rows.store, delta.changes):
                self._replicated[delta.generation] = None
        while len(self._replicated) > REMEMBERED:
            self._replicated.popitem(last=False)

    async def confirm(self, _: Empty) -> contract.Confirmed:
        return contract.Confirmed(host=self._rows.host, process=self._process, term=self._rows.store.term)

    async def follow(self, report: contract.Follow) -> contract.Following:
        self._reports[report.host] = _Report(report, self._clock())
        there = self._there()
        if report.term == self._rows.store.term:
            self.semi_sync.heard(contract.DurableAt(host=report.host, term=report.term, generation=report.durable))
        return contract.Following(
            keep=report.host in self._keepers(there),
            host=self._rows.host,
            term=self._rows.store.term,
            hosts=sorted({*there, self._rows.host}),
            prompt=self.semi_sync.wanted > 0,
            durable=self._rows.committer.durable,
        )

    def _there(self) -> list[str]:
        since = self._clock() - REPORTED
        for host in [host for host, report in self._reports.items() if report.at < since]:
            del self._reports[host]
            self.semi_sync.gone(host)
        return list(self._reports)

    def _keepers(self, there: list[str]) -> list[str]:
        pools = list(self._rows.store.rows("pool").values())
        chosen = str(pools[0]["other_config"].get(CHOSEN, "")) if pools else ""
        return choice.keepers(there, self._wanted, [name.strip() for name in chosen.split(",") if name.strip()])

    def standbys(self) -> dict[str, int]:
        """Those that persist, with the generation that they last reported."""
        keepers = self._keepers(self._there())
        have = self.semi_sync.have
        return {host: max(self._reports[host].follow.durable, have.get(host, 0)) for host in keepers}

    def unmerged(self) -> list[str]:
        """Files on the hosts that report, as `<host>:<path>`."""
        self._there()
        return [f"{host}:{path}" for host, report in self._reports.items() for path in report.follow.unmerged]

    # ---- the office

    async def run(self) -> None:
        """Takes requests until it is cancelled."""
        subscription = None
        if self.semi_sync.wanted:
            subscription = await self._bus.subscribe(contract.DURABLE, self._on_durable)
        self._open = True
        opening = asyncio.create_task(
            self._bus.start_consuming(contract.TRANSACT.service, again=self._again), name="open the queue"
        )
        try:
            await self._insist(opening)
            await self._renew()
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            if subscription is not None:
                await subscription.cancel()

    def _on_durable(self, report: contract.DurableAt, _: str) -> None:
        if report.term == self._rows.store.term:
            self.semi_sync.heard(report)

    async def _insist(self, opening: asyncio.Task[None]) -> None:
        """Somebody who consumes the queue although we are primary does not know that he was replaced."""
        while True:
            done, _ = await asyncio.wait({opening}, timeout=SETTLE)
            if done:
                opening.result()
                return
            await self.ask()
            log.warning("another process takes the requests of earlier terms: it is shut out")
            await self._bus.evict(contract.TRANSACT.service)

    async def _renew(self) -> None:
        """Whoever promises a term after we have the queue, and were told that nobody had, deletes it after we had it.

        So the others are asked once more, each time that we see that we have it again, before anything is answered.
        """
        while True:
            sent = self.lease.clock()
            try:
                answer = await self._bus.call(contract.CONFIRM, Empty(), timeout=LEASE)
            except ApiError as error:
                log.debug("the queue does not bring what is sent to it: %s", error)
            else:
                if answer.process == self._process and self._unsure:
                    self._unsure = False
                    await self.ask()
                    continue
                if answer.process == self._process:
                    self.lease.renew(sent)
                    self.confirmed = self._rows.committer.durable
            await asyncio.sleep(RENEW)

    async def _again(self) -> None:
        """The connection, or the queue, was lost: no request is taken before the others have said who is primary."""
        self.lease.suspend()
        self._unsure = True
        await self.ask()

    async def ask(self) -> None:
        """Returns when this process is primary; never does if another one has taken its place."""
        silent_since: float | None = None
        settled = self._clock() + SETTLE
        while True:
            expected = set(self._reports)
            roles = await self._peers.roles(self._others())
            verdict = choice.standing(self._rows.host, self._rows.store.term, roles)
            if verdict is Standing.REPLACED:
                self._step_down()
                await asyncio.Event().wait()
            if verdict is Standing.WAIT:
                silent_since = self._clock()
                await asyncio.sleep(AGAIN)
                continue
            if silent_since is not None and self._clock() < silent_since + PROMISE:
                if expected <= {role.host for role in roles}:
                    return  # whoever had promised to begin a term has given it up
            elif expected <= {role.host for role in roles} or self._clock() > settled:
                return
            await asyncio.sleep(AGAIN)

    def _others(self) -> list[str]:
        """Hosts that may have a process of the database."""
        listed = {str(row["uuid"]) for row in self._rows.store.rows("host").values()}
        return sorted((listed | set(self._reports)) - self._own)

    def _step_down(self) -> None:
        self._open = False
        self.lease.end()
        self.semi_sync.end()
        self.replaced.set()

    async def resign(self, patience: float) -> contract.Position:
        """Nothing is committed after the position that this returns. Raises INTERNAL_ERROR: nothing has changed."""
        self._open = False
        try:
            async with asyncio.timeout(patience):
                await self._bus.stop_consuming(contract.TRANSACT.service)
                self.lease.grant()
                await self._idle.wait()
                await self._rows.committer.wait_durable(self._rows.store.generation)
        except (TimeoutError, ApiError) as error:
            self._open = True
            self.lease.begin()
            await self._bus.start_consuming(contract.TRANSACT.service, again=self._again)
            raise internal_error(f"the requests in progress do not end: {error}") from error
        return self._rows.position
