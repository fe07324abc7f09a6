"""A process that is not primary: follows the deltas, persists them in its own log, and says how far it is.

Commits are applied as they come and join the committer's batches, so what arrives while a write is in flight shares the
next fdatasync. Whatever does not fit the rows (a gap, a new term, a write that failed) is settled in one way: the
commits since our position are asked for, and all rows when they cannot be had. Deltas of lower terms are dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from services.db.standby.peers import Peers
from services.db.standby.rows import Rows
from shared.bus.interface import Bus, BusError
from shared.contracts import db as contract
from shared.errors import ApiError, internal_error

log = logging.getLogger("db.standby")

REPORT: Final = 2.0
"""Seconds between two reports to the primary."""

UNHEARD: Final = 0.2
"""The same while it does not answer."""

LAZY: Final = 0.02
"""Seconds between two events that say how far we are, when no commit waits for them."""

EARLY: Final = 20_000
"""Deltas kept that came while we were catching up."""

RETRY_FIRST: Final = 0.05
RETRY_LONGEST: Final = 2.0

PAUSE: Final = 1.0
"""Seconds to wait after a commit that could not be written."""


class Follower:
    """`keep`: as the primary last said. `unmerged`: files to report."""

    def __init__(self, bus: Bus, rows: Rows, peers: Peers, unmerged: Callable[[], list[str]]) -> None:
        self.keep = False
        self.needed = False
        """It follows, whatever the primary says."""
        self.primary = ""
        """The host whose process answered last."""
        self._bus = bus
        self._rows = rows
        self._peers = peers
        self._unmerged = unmerged
        self._prompt = False
        self._announced = 0
        """How far the primary was when it was last asked."""
        self._behind = True
        self._early: list[contract.Delta] = []
        self._wanted = asyncio.Event()
        self._moved = asyncio.Event()
        self._durable = asyncio.Event()
        self._catching = asyncio.Lock()
        self._asking: asyncio.Task[contract.Changes] | None = None
        self._following: asyncio.Task[None] | None = None
        self._halted = False
        bus.on_reconnect(self._on_reconnect)

    @property
    def caught_up(self) -> bool:
        return self._following is not None and not self._behind

    async def run(self) -> None:
        """Reports and follows, until cancelled."""
        self._halted = False
        try:
            while True:
                answered = await self._report()
                if self._following is not None and self._following.done():
                    self._following.result()
                follow = self.keep or self.needed
                if follow and self._following is None and not self._halted:
                    self._following = asyncio.create_task(self._follow(), name="follow")
                elif not follow and self._following is not None:
                    await self._stop()
                await asyncio.sleep(REPORT if answered else UNHEARD)
        finally:
            await self._stop()

    async def follow_now(self) -> None:
        """Whatever the primary said: this process is about to be promoted. Its `run` may be going on."""
        self.needed, self._halted = True, False
        if self._following is None:
            self._following = asyncio.create_task(self._follow(), name="follow")

    async def halt(self) -> None:
        """Nothing is followed any more until `go_on`, or another `run`."""
        self._halted = True
        await self._stop()

    def go_on(self) -> None:
        self._halted = False

    async def _stop(self) -> None:
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _report(self) -> bool:
        rows = self._rows
        report = contract.Follow(host=rows.host, term=rows.store.term, durable=rows.durable, unmerged=self._unmerged())
        try:
            answer = await self._bus.call(contract.FOLLOW, report, timeout=REPORT)
        except ApiError as error:
            log.debug("the primary does not answer: %s", error)
            return False
        if answer.term < rows.store.term:
            return False  # it does not know yet that it was replaced
        self.keep, self.primary, self._prompt = answer.keep, answer.host, answer.prompt
        if self.caught_up and rows.store.generation < self._announced:
            self._want(f"generation {self._announced} has not arrived")
        self._announced = answer.durable
        if answer.hosts != rows.kept.kept.hosts:
            try:
                await rows.note_hosts(answer.hosts)
            except OSError as error:
                log.error("the other hosts with a database cannot be noted: %s", error)
        return True

    # ---- following

    async def _follow(self) -> None:
        self._behind = True
        self._rows.on_commit = self._on_commit
        subscription = await self._bus.subscribe(contract.DELTA, self._on_deltas)
        telling = asyncio.create_task(self._tell(), name="durable")
        try:
            while True:
                await self._catch_up_at_last()
                await self._wanted.wait()
        finally:
            telling.cancel()
            self._rows.on_commit = None
            try:
                await subscription.cancel()
            except BusError as error:
                log.debug("the subscription ends with its connection: %s", error)

    async def _on_reconnect(self) -> None:
        self._want("the connection to the bus was lost")

    def _want(self, why: str) -> None:
        if not self._behind:
            log.info("asking for what was missed: %s", why)
        self._behind = True
        self._wanted.set()

    def _on_deltas(self, deltas: contract.Deltas, _: str) -> None:
        for delta in deltas.each():
            if self._behind:
                self._early.append(delta)
                if len(self._early) > EARLY:
                    del self._early[: EARLY // 2]
            else:
                self._take(delta)

    def _take(self, delta: contract.Delta) -> None:
        store = self._rows.store
        if delta.term < store.term or (delta.term == store.term and delta.generation <= store.generation):
            return
        if delta.term > store.term or delta.previous != store.generation:
            self._early.append(delta)
            self._want(f"generation {delta.generation} of term {delta.term} does not follow {store.generation}")
            return
        self._rows.committer.follow(delta).add_done_callback(self._followed)
        self._moved.set()

    def _followed(self, done: asyncio.Future[contract.Committed]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None and not self._behind:
            self._behind = True
            asyncio.get_running_loop().call_later(PAUSE, self._want, str(error))

    async def _catch_up_at_last(self) -> None:
        delay = RETRY_FIRST
        told = ""
        while True:
            self._wanted.clear()
            try:
                await self.catch_up()
                return
            except (ApiError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("waiting for the primary's commits: %s", told)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_LONGEST)

    async def catch_up(self, host: str = "") -> None:
        """Everything that the primary, or that host's process, has now. Raises `ApiError`.

        An answer of a lower term than ours is an error: whoever gave it does not know that it was replaced. A primary
        that has not answered yet is not waited for any more when another process is asked.
        """
        if host and self._asking is not None:
            self._asking.cancel()
        async with self._catching:
            self._behind = True
            await self._bring(host)
            self._behind = False
            early, self._early = self._early, []
            for delta in early:
                if self._behind:
                    self._early.append(delta)
                else:
                    self._take(delta)

    async def _bring(self, host: str) -> None:
        rows = self._rows
        while True:
            answer = await self._ask(host)
            if answer.at.term < rows.store.term:
                raise internal_error(f"the rows of term {answer.at.term} are older than ours of {rows.store.term}")
            if answer.deltas is None:
                log.info(
                    "fetching all rows: ours are no part of the history, or too old", extra={"ours": str(rows.position)}
                )
                snapshot = await self._peers.snapshot(host)
                if snapshot.store.term < rows.store.term:
                    raise internal_error(f"a snapshot of term {snapshot.store.term} is older than {rows.store.term}")
                await rows.replace(snapshot)
                self._moved.set()
                log.info("took over all rows", extra={"generation": rows.store.generation, "term": rows.store.term})
                continue
            await rows.note_terms(answer.starts)
            last: asyncio.Future[contract.Committed] | None = None
            for delta in answer.deltas:
                if delta.previous != rows.store.generation:
                    raise internal_error(f"generation {delta.generation} does not follow {rows.store.generation}")
                last = rows.committer.follow(delta)
            if last is not None:
                await last
            self._moved.set()
            if rows.store.generation >= answer.at.generation or not answer.deltas:
                await rows.enter_term(answer.at.term)
                self._durable.set()
                return

    async def _ask(self, host: str) -> contract.Changes:
        asking = self._asking = asyncio.create_task(self._peers.changes(self._rows.position, host))
        try:
            await asyncio.wait({asking})
        finally:
            self._asking = None
            asking.cancel()
        if asking.cancelled():
            raise internal_error("somebody else is asked")
        return asking.result()

    async def reach(self, generation: int, timeout: float) -> None:
        """Until our rows have that commit durably. Raises INTERNAL_ERROR."""
        rows = self._rows
        try:
            async with asyncio.timeout(timeout):
                while rows.store.generation < generation:
                    self._moved.clear()
                    await self._moved.wait()
                await rows.committer.wait_durable(rows.store.generation)
        except TimeoutError:
            raise internal_error(f"generation {generation} has not come, only {rows.store.generation}") from None

    # ---- telling

    async def _on_commit(self, _: Sequence[contract.Delta]) -> None:
        self._durable.set()

    async def _tell(self) -> None:
        rows = self._rows
        while True:
            await self._durable.wait()
            self._durable.clear()
            report = contract.DurableAt(host=rows.host, term=rows.store.term, generation=rows.committer.durable)
            await self._bus.publish(contract.DURABLE, report, host=rows.host)
            if not self._prompt:
                await asyncio.sleep(LAZY)
