"""The rows of this process with their history, whatever it stands as: what it can tell followers, and how its terms
begin.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from services.db.checkpoint import Checkpoints
from services.db.committer import Committer
from services.db.recovery import RESERVE, blank_volatile
from services.db.redo.interface import Recovered, RedoLogError
from services.db.standby.kept import KeptFile
from services.db.standby.peers import Snapshot
from services.db.standby.recent import RecentDeltas
from shared.contracts.db import Changes, Delta, Position, RedoLogDisk, TermStart
from shared.errors import ApiError, internal_error
from shared.lineage import Lineage
from shared.store import Store

log = logging.getLogger("db.standby")

NOBODY: Final = "-"
"""In the place of the host that began a term: rows that came back without what is volatile. Nobody else has them so."""

SKIP: Final = 2 * RESERVE
"""Generations left out where a term is taken by force: the old primary may have handed out some that nobody has."""

Publish = Callable[[Sequence[Delta]], Awaitable[None]]


class Ahead(Exception):
    """The rows that should take the place of ours are of a lower generation: our log has to go first."""


class Rows:
    """`host`: uuid of this process's host. `on_commit` gets all commits once they are durable here, in order.

    `writing`: held while all rows are written to a file.
    """

    def __init__(
        self,
        host: str,
        committer: Committer,
        checkpoints: Checkpoints,
        kept: KeptFile,
        recent: RecentDeltas,
        writing: asyncio.Lock,
    ) -> None:
        self.host = host
        self.committer = committer
        self.kept = kept
        self.recent = recent
        self.on_commit: Publish | None = None
        self.before_replace: Callable[[Snapshot], Awaitable[None]] | None = None
        """Sees what will take the place of these rows, before it does. May raise `OSError`: then it does not."""
        self._checkpoints = checkpoints
        self._writing = writing
        self._keeping = asyncio.Lock()
        self._beginning: TermStart | None = None
        """A term whose first commit has not been published."""
        self._cut_off = False
        """A term taken by force may have been announced and is not in the log, or the log itself was lost."""
        self._volatile_left = False
        """Of rows that a machine's restart has taken the volatile ones from, and nobody has removed the rest yet."""

    @property
    def store(self) -> Store:
        return self.committer.store

    @property
    def lineage(self) -> Lineage:
        return self.kept.lineage

    @property
    def durable(self) -> int:
        """The newest generation of the pool's history that is durable here."""
        lineage = self.lineage
        return lineage.starts[-1].base if lineage.host == NOBODY else self.committer.durable

    @property
    def position(self) -> Position:
        return self.lineage.at(self.store.generation)

    async def publish(self, deltas: Sequence[Delta]) -> None:
        """What the committer calls when commits are durable. The first of a term says that it is."""
        start, self._beginning = self._beginning, None
        if start is not None:
            deltas = [msgspec.structs.replace(deltas[0], previous=start.base, begins=start), *deltas[1:]]
        for delta in deltas:
            self.recent.add(delta)
        if self.on_commit is not None:
            await self.on_commit(deltas)

    def changes(self, asked: Position) -> Changes:
        """The durable commits since then, if this history has what was before."""
        lineage, at = self.lineage, self.lineage.at(self.committer.durable)
        starts = lineage.after(asked.term)
        if not lineage.includes(asked, at.generation):
            return Changes(at=at, deltas=None, starts=starts)
        if asked.generation >= at.generation:
            return Changes(at=at, deltas=[], starts=starts)
        return Changes(at=at, deltas=self.recent.since(asked.generation), starts=starts)

    # ---- terms

    def settle(
        self, found: Recovered, rebooted: bool, volatile_left: bool, pool: str, *, from_file: bool = False
    ) -> None:
        """At a start: the lineage of what the log holds. Blocks for some milliseconds; raises `OSError`.

        `from_file`: the rows have just come from a file, and are behind what anybody was told.
        """
        lineage = self.lineage.until(found.term)
        taken_by_force = lineage != self.lineage and self.lineage.starts[-1].forced
        self._cut_off = taken_by_force or from_file or lineage.host == NOBODY
        self._volatile_left = volatile_left
        if from_file or lineage.term != self.store.term or (rebooted and lineage.host != NOBODY):
            base = self.store.generation if from_file else found.generation
            start = TermStart(term=self.store.term, base=base, host=NOBODY)
            lineage = Lineage((start,) if self.store.term else ())
        self.kept.save(lineage=list(lineage.starts), pool=pool)

    async def begin_term(self, term: int, forced: bool) -> None:
        """From here on this process is primary. It is decided, durably, when this returns.

        Raises `OSError`, `RedoLogError`, INTERNAL_ERROR: nothing was decided.
        """
        lineage = self.lineage
        known = lineage.term != 0 and lineage.host != NOBODY
        skip = SKIP if forced or self._cut_off or self._volatile_left else 0
        if self._volatile_left:
            await self._forget_volatile()
        start = TermStart(
            term=term,
            base=self.store.generation,
            after=lineage.term if known else 0,
            host=self.host,
            forced=forced,
        )
        before = self.kept.kept
        await self._keep(role="primary", promised=0, lineage=list(lineage.began(start).starts))
        try:
            await self.committer.enter_term(term, skip)
        except (RedoLogError, ApiError):
            await self._keep(role=before.role, promised=before.promised, lineage=before.lineage)
            raise
        self._cut_off = self._volatile_left = False
        self._beginning = start

    async def announce(self) -> None:
        """A term without a first commit: followers hear of it all the same."""
        if self._beginning is not None:
            at = self.store.generation
            await self.publish([Delta(term=self.store.term, generation=at, previous=at, changes=[])])

    async def note_terms(self, starts: list[TermStart]) -> None:
        """The primary's terms since ours, which go on from our rows. Before any of their commits."""
        lineage = self.lineage
        for start in starts:
            lineage = lineage.began(start)
        if lineage != self.lineage:
            await self._keep(lineage=list(lineage.starts))

    async def enter_term(self, term: int) -> None:
        """We have all that the primary had when it said that this is its term. Raises INTERNAL_ERROR."""
        if term != self.store.term:
            try:
                await self.committer.enter_term(term, 0)
            except RedoLogError as error:
                raise internal_error(f"term {term} cannot be kept: {error}") from error

    async def note_redo_log(self, disk: RedoLogDisk | None) -> None:
        """On which disk the redo log is as well, for the next start. Raises `OSError`."""
        await self._keep(redo_log=disk)

    async def note_hosts(self, hosts: list[str]) -> None:
        """That have a process of the database."""
        await self._keep(hosts=hosts)

    async def promise(self, term: int) -> None:
        """That it will try to begin this term; 0: it does not any more. Raises `OSError`."""
        await self._keep(promised=term)

    async def withdraw(self) -> None:
        """It does not try to begin that term any more: a primary that waits for it goes on."""
        try:
            await self.promise(0)
        except OSError as error:
            log.error("a promise cannot be taken back on disk, so the next start tries to keep it: %s", error)
            self.kept.forget_promise()

    async def stand_back(self) -> None:
        """It is not primary any more, also after a restart. Raises `OSError`."""
        await self._keep(role="standby", promised=0)

    async def _forget_volatile(self) -> None:
        changes = blank_volatile(self.store)
        generation = self.store.generation + 1
        delta = Delta(term=self.store.term, generation=generation, previous=generation - 1, changes=changes)
        await self.committer.follow(delta)

    # ---- other rows

    async def restored(self, delta: Delta) -> None:
        """Another database has taken the place of this one, in a term of its own: `delta` tells of it."""
        start = TermStart(term=delta.term, base=delta.generation, host=self.host)
        await self._keep(lineage=[start])
        self.recent.clear()
        self._beginning = start
        await self.publish([delta])

    async def replace(self, snapshot: Snapshot) -> None:
        """Those of another process, durably, in the place of ours. Raises INTERNAL_ERROR, `Ahead`: ours are still
        there. Who is cancelled waits for its end: the log and the memory must not differ.
        """
        replacing = asyncio.create_task(self._replace(snapshot), name="replace all rows")
        try:
            await asyncio.shield(replacing)
        except asyncio.CancelledError:
            await asyncio.wait({replacing})
            raise

    async def _replace(self, snapshot: Snapshot) -> None:
        store, committer = snapshot.store, self.committer
        if store.generation < self.store.generation:
            # What our log holds after it would be replayed on it.
            raise Ahead(f"generation {store.generation} of term {store.term} is before {self.store.generation}")
        try:
            if self.before_replace is not None:
                await self.before_replace(snapshot)
            async with self._writing, committer.alone():
                await self._checkpoints.replace(store, snapshot.requests)
                await self._keep(lineage=list(snapshot.lineage.starts))
                await committer.take_over(store, "")
                committer.remember(snapshot.requests.items())
                self._volatile_left = False
                self.recent.clear()
        except (RedoLogError, OSError) as error:
            raise internal_error(f"the rows cannot be kept: {error}") from error

    async def _keep(self, **fields: object) -> None:
        async with self._keeping:
            await asyncio.to_thread(lambda: self.kept.save(**fields))
