"""What this process stands as, from its start to its end: primary, standby or idle, and how that changes.

    starting --> primary <--> standby | idle        a promotion, a hand-over
                    |             ^
                    +--> fenced --+                 another process has begun a later term

One task owns all of it (`run`): whatever asks for a change sets an event, and is answered when it has happened.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from services.db.disk import Disk
from services.db.snapshots import Snapshots
from services.db.standby import choice, unmerged
from services.db.standby.choice import Standing
from services.db.standby.follower import Follower
from services.db.standby.peers import Peers, Snapshot
from services.db.standby.primary import Primary
from services.db.standby.promotion import Promotion
from services.db.standby.rows import Ahead, Rows
from services.db.standby.semi_sync import NAMES, Policy, SemiSync
from services.db.standby.unmerged import UnmergedFiles
from shared.bus.context import NO_TERM, CallContext, current
from shared.bus.contract import Empty
from shared.bus.interface import BusError, NotHere
from shared.contracts import db as contract
from shared.contracts.alerts import ALERT, Alert
from shared.errors import ApiError, internal_error
from shared.host_role import RESTART
from shared.service import Service

log = logging.getLogger("db.standby")

Role = Literal["starting", "primary", "standby", "idle", "promoting", "fenced"]

Done = TypeVar("Done")

RESIGN: Final = 5.0
"""Seconds that requests in progress get when another process takes over."""

SUCCESSOR: Final = 10.0
"""Seconds that it gets to begin its term; then the one that resigned takes its place again."""

RETRY: Final = 1.0
"""Seconds between two attempts at what could not be done."""


@dataclass(frozen=True, slots=True)
class StandbyOptions:
    """`primary`: it starts as one if nobody has taken its place. `standbys`: how many persist what they follow.

    `synchronous_standbys`, `synchronous_timeout` (seconds), `when_standbys_missing`: see `semi_sync.py`.
    """

    primary: bool = True
    standbys: int = 2
    synchronous_standbys: int = 0
    synchronous_timeout: float = 2.0
    when_standbys_missing: Policy = "continue"


_FOLLOWING: Final = ("standby", "idle")


@dataclass(slots=True)
class _Wish:
    """A promotion that somebody waits for."""

    host: str
    planned: bool
    done: asyncio.Future[contract.Promoted] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Stand:
    """`publish` tells followers of commits; `create` makes the pool of a process that has no rows, as primary.

    `behind`: the log was lost, and the rows are those of an older file.
    """

    def __init__(
        self,
        service: Service,
        rows: Rows,
        snapshots: Snapshots,
        options: StandbyOptions,
        publish: Callable[[Sequence[contract.Delta]], Awaitable[None]],
        create: Callable[[], Awaitable[None]],
        disk: Disk | None = None,
        *,
        behind: bool = False,
    ) -> None:
        self.primary: Primary | None = None
        self.settled = asyncio.Event()
        """What it is at first is decided."""
        self._service = service
        self._bus = service.bus
        self._rows = rows
        self._snapshots = snapshots
        self._options = options
        self._behind = behind
        self._publish = publish
        self._create = create
        self._own = frozenset(host.uuid for host in service.hosts)
        self._peers = Peers(service.bus)
        self._files = UnmergedFiles(service.state_dir, disk)
        self._told: asyncio.Queue[str] = asyncio.Queue()
        self._semi_sync = SemiSync(
            options.synchronous_standbys,
            options.synchronous_timeout,
            options.when_standbys_missing,
            self._told.put_nowait,
        )
        self._follower = Follower(service.bus, rows, self._peers, self._files.names)
        self._promotion = Promotion(service.bus, rows, self._peers, self._follower, self._own)
        self._wishes: asyncio.Queue[_Wish] = asyncio.Queue()
        self._resigned: asyncio.Future[str] | None = None
        self._role: Role = "starting"
        self._abandoned = False
        self._fenced = False
        """It was primary, and has not the rows of its successor yet."""
        self._confirmed = rows.committer.durable
        """The newest commit of which it is known that it was made as primary."""
        rows.before_replace = self._write_down

    @property
    def role(self) -> Role:
        if self._role != "standby":
            return self._role
        if self._fenced:
            return "fenced"
        return "standby" if self._follower.keep else "idle"

    @property
    def abandoned(self) -> bool:
        """The log was put aside: nothing is to be written to it."""
        return self._abandoned

    # ---- what it serves

    async def serve(self) -> None:
        """The methods of each of its hosts. Open before anything is decided: of two that start, one sees the other.

        Those of the pool are open only while this process is primary.
        """
        await self._service.present(contract.TRANSACT.service, later=True)
        for host in sorted(self._own):
            await self._service.serve(contract.DB_ROLE, self._describe(host), host=host)
            await self._service.serve(contract.PROMOTE, self._promoter(host), host=host)
            await self._service.serve(contract.HOST_CHANGES, self._changes, host=host)
            await self._service.serve(contract.HOST_SNAPSHOT, self._snapshots.page, host=host)
            await self._bus.start_consuming(contract.TRANSACT.service, host=host)
        await self._service.serve(contract.CHANGES_SINCE, self._changes)
        await self._service.serve(contract.FOLLOW, self._follow)
        await self._service.serve(contract.CONFIRM, self._confirm)
        await self._service.serve(contract.RESIGN, self._resign)

    def _describe(self, host: str) -> Callable[[Empty], Awaitable[contract.DbRole]]:
        async def describe(_: Empty) -> contract.DbRole:
            rows = self._rows
            return contract.DbRole(
                host=host,
                role=self.role,
                term=rows.store.term,
                generation=rows.store.generation,
                durable=rows.durable,
                caught_up=self.role == "primary" or self._follower.caught_up,
                promised=rows.kept.kept.promised,
            )

        return describe

    async def _changes(self, position: contract.Position) -> contract.Changes:
        return self._rows.changes(position)

    async def _follow(self, report: contract.Follow) -> contract.Following:
        return await self._present().follow(report)

    async def _confirm(self, request: Empty) -> contract.Confirmed:
        return await self._present().confirm(request)

    async def transact(self, request: contract.Transact, context: CallContext) -> contract.Committed:
        return await self._present().transact(request, context)

    def _present(self) -> Primary:
        """Raises `NotHere`: the caller asks whoever is primary."""
        if self.primary is None:
            raise NotHere
        return self.primary

    async def perform(self, work: Callable[[], Awaitable[Done]]) -> Done:
        """What only the primary does. Raises `NotHere`: the caller asks whoever is primary."""
        return await self._present().perform(work)

    def standbys(self) -> dict[str, int]:
        return self.primary.standbys() if self.primary is not None else {}

    def unmerged(self) -> list[str]:
        """Of all hosts that a primary knows of, as `<host>:<path>`."""
        own = [f"{self._rows.host}:{path}" for path in self._files.names()]
        return own + (self.primary.unmerged() if self.primary is not None else [])

    @property
    def degraded(self) -> str:
        return self._semi_sync.degraded

    # ---- what it is asked to become

    def _promoter(self, host: str) -> Callable[[contract.Promote], Awaitable[contract.Promoted]]:
        async def promote(request: contract.Promote) -> contract.Promoted:
            wish = _Wish(host, request.planned)
            self._wishes.put_nowait(wish)
            return await asyncio.shield(wish.done)

        return promote

    async def _resign(self, request: contract.Resign) -> contract.Resigned:
        primary = self._present()
        if self._resigned is not None:
            raise internal_error("this host's database is being handed over already")
        self._resigned = asyncio.get_running_loop().create_future()
        try:
            position = await primary.resign(RESIGN)
            await self._rows.stand_back()
        except (OSError, ApiError) as error:
            self._resigned = None
            raise internal_error(f"the database is not handed over: {error}") from error
        self._resigned.set_result(request.host)
        primary.replaced.set()
        log.warning("this host's database hands over", extra={"to": request.host, "generation": position.generation})
        return contract.Resigned(term=position.term, generation=position.generation)

    # ---- the life of the process

    async def close(self) -> None:
        """Takes no more requests of the pool."""
        with suppress(BusError):
            await self._bus.stop_consuming(contract.TRANSACT.service)

    async def run(self) -> None:
        """Until cancelled."""
        # A primary that has missed that there is another one must be able to ask and hear it.
        current.set(CallContext(term=NO_TERM))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_of_standbys())
            group.create_task(self._live())

    async def _live(self) -> None:
        serving = await self._begin()
        self.settled.set()
        while True:
            if serving:
                await self._reign()
            serving = True
            await self._stand_by()

    async def _begin(self) -> bool:
        """Whether this process starts as primary."""
        if not self._options.primary:
            return False
        if self._behind and await self._could_have_rows_back():
            log.critical("the redo log was lost, and another host's database has newer rows: taking over from there")
            self._wishes.put_nowait(_Wish(self._rows.host, planned=False))
            return False
        verdict = await self._verdict()
        if verdict is Standing.REPLACED:
            log.warning("another host's database has begun a later term: this one stands by")
            self._fenced = True
            return False
        roles = await self._peers.roles(self._promotion.others())
        await self._rows.begin_term(choice.next_term(self._rows.store.term, roles), forced=False)
        self._bus.observe_term(self._rows.lineage.reign)
        return True

    async def _could_have_rows_back(self) -> bool:
        """Whether others have more than we do, and nobody of them has taken over."""
        roles = await self._peers.roles(self._promotion.others())
        own = self._promotion.describe()
        return any(choice.is_ahead(role, own) for role in roles) and all(role.role in _FOLLOWING for role in roles)

    async def _verdict(self) -> Standing:
        """What the others say, once none of them is about to begin a term."""
        while True:
            roles = await self._peers.roles(self._promotion.others())
            verdict = choice.standing(self._rows.host, self._rows.store.term, roles)
            if verdict is not Standing.WAIT:
                return verdict
            await asyncio.sleep(RETRY / 5)

    async def _reign(self) -> None:
        """Primary, until another process is."""
        rows = self._rows
        options = self._options
        primary = Primary(self._bus, rows, self._peers, self._own, options.standbys, self._semi_sync)

        async def on_commit(deltas: Sequence[contract.Delta]) -> None:
            primary.published(deltas)
            await self._publish(deltas)

        rows.on_commit = on_commit
        await self._create()
        await self._claim(rows.host, self._own)
        await rows.announce()
        self._role, self.primary, self._resigned = "primary", primary, None
        self.settled.set()
        office = asyncio.create_task(primary.run(), name="primary")
        ended = asyncio.create_task(primary.replaced.wait(), name="replaced")
        wishes = asyncio.create_task(self._already(), name="promotions")
        try:
            await asyncio.wait({office, ended, wishes}, return_when=asyncio.FIRST_COMPLETED)
            if office.done():
                office.result()
            if wishes.done():
                wishes.result()
        finally:
            for task in (office, ended, wishes):
                task.cancel()
            await asyncio.gather(office, ended, wishes, return_exceptions=True)
        await self._bus.stop_consuming(contract.TRANSACT.service)
        rows.on_commit = None
        self.primary = None
        if self._resigned is None:
            self._fenced, self._confirmed = True, primary.confirmed
            log.critical("another host's database is primary now: this one is shut out")

    async def _already(self) -> None:
        """Promotions of who is primary already."""
        while True:
            wish = await self._wishes.get()
            try:
                generation = await self._claim(wish.host)
            except ApiError as error:
                _fail(wish, error)
            else:
                _grant(wish, contract.Promoted(term=self._rows.store.term, generation=generation, source=wish.host))

    async def _claim(self, host: str, unless: Collection[str] = ()) -> int:
        """`pool.master` becomes the host, unless it is one of those. Returns the generation. Raises INTERNAL_ERROR."""
        store = self._rows.store
        ref = store.ref_of_uuid("host", host)
        pool = next(iter(store.tables["pool"].rows), None)
        if ref is None or pool is None:
            return store.generation
        master = store.row("host", store.get("pool", pool, "master"))
        if master is not None and master["uuid"] in unless:
            return store.generation
        change = contract.Update(cls="pool", ref=pool, fields={"master": ref})
        committed = await self._rows.committer.transact(contract.Transact(changes=[change]))
        return committed.generation

    async def _stand_by(self) -> None:
        """Returns when this process has begun a term of its own."""
        resigned, self._resigned = self._resigned, None
        self._role = "standby"
        self.settled.set()
        waiting: set[asyncio.Task[None]] = set()
        following = asyncio.create_task(self._following(), name="follower")
        if self._fenced:
            waiting.add(asyncio.create_task(self._settle_down(), name="settle down"))
        if resigned is not None:
            waiting.add(asyncio.create_task(self._await_successor(resigned.result()), name="successor"))
        if self._rows.kept.kept.promised:
            log.warning("a promotion was interrupted: trying once more")
            self._wishes.put_nowait(_Wish(self._rows.host, planned=False))
        try:
            while True:
                wish = await self._next_wish(following)
                if await self._promote(wish):
                    return
        finally:
            for task in (following, *waiting):
                task.cancel()
            await asyncio.gather(following, *waiting, return_exceptions=True)

    async def _next_wish(self, following: asyncio.Task[None]) -> _Wish:
        asking = asyncio.create_task(self._wishes.get())
        try:
            await asyncio.wait({asking, following}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            return await asking
        finally:
            asking.cancel()

    async def _following(self) -> None:
        try:
            await self._follower.run()
        except Ahead as error:
            await self._start_without_rows(error)

    async def _start_without_rows(self, why: Ahead) -> None:
        """Our log is no part of the pool's history, and cannot be replaced while it is used."""
        folder = self._service.state_dir / "redo"
        aside = folder.with_name(f"redo-left-{self._rows.store.term}-{self._rows.store.generation}")
        log.critical("%s: the log is put aside as %s", why, aside.name)
        await asyncio.to_thread(folder.rename, aside)
        self._abandoned = True
        self._service.exit(RESTART)
        await asyncio.Event().wait()

    async def _promote(self, wish: _Wish) -> bool:
        began = time.monotonic()
        self._role = "promoting"
        try:
            source = await (self._promotion.planned() if wish.planned else self._promotion.forced())
        except (ApiError, OSError) as error:
            log.error("this host's database was not promoted: %s", error)
            self._role = "standby"
            self._follower.needed = self._fenced
            _fail(wish, internal_error(f"the database of this host cannot be promoted: {error}"))
            return False
        except BaseException:
            _fail(wish, internal_error("the promotion was interrupted"))
            raise
        self._rows.on_commit = self._publish
        self._bus.observe_term(self._rows.lineage.reign)
        generation = await self._claim(wish.host)
        await self._rows.announce()
        log.warning("promoted", extra={"seconds": round(time.monotonic() - began, 3), "source": source})
        _grant(wish, contract.Promoted(term=self._rows.store.term, generation=generation, source=source))
        return True

    async def _await_successor(self, host: str) -> None:
        """A pool is not left without primary: if nobody takes over, this process does again."""
        term = self._rows.store.term
        deadline = time.monotonic() + SUCCESSOR
        while self._rows.store.term == term:
            await asyncio.sleep(RETRY / 5)
            if time.monotonic() < deadline:
                continue
            roles = await self._peers.roles([host])
            if any(role.role in ("promoting", "primary") for role in roles):
                deadline = time.monotonic() + SUCCESSOR
                continue
            log.error("host %s has not taken over: this one does again", host)
            wish = _Wish(self._rows.host, planned=False)
            self._wishes.put_nowait(wish)
            await asyncio.wait({wish.done})
            deadline = time.monotonic() + SUCCESSOR

    # ---- having been replaced

    async def _settle_down(self) -> None:
        """Follows the new primary, whatever that says; then this process is a standby also after a restart."""
        await self._follower.follow_now()
        told = ""
        while self._fenced:
            await asyncio.sleep(RETRY / 10)
            if not self._follower.caught_up:
                continue
            try:
                await self._rows.stand_back()
            except OSError as error:
                if str(error) != told:
                    told = str(error)
                    log.error("it cannot be written down that this host's database is no primary any more: %s", told)
                continue
            self._fenced = self._follower.needed = False

    async def _write_down(self, snapshot: Snapshot) -> None:
        """Which commits of this process as primary the new primary does not have, before they are given up.

        Raises `OSError`.
        """
        rows = self._rows
        if rows.lineage.host != rows.host:
            return
        end = snapshot.lineage.end(rows.position)
        base = self._confirmed if end is None else end
        commits, complete = rows.recent.after(base)
        lost = unmerged.left_out(commits, rows.store, snapshot.requests)
        if not lost or end == -1:
            return
        text = unmerged.report(lost, rows.store, rows.host, base, complete)
        path = await asyncio.to_thread(self._files.write, text, rows.store.term, rows.store.generation)
        why = f"{len(lost)} commits after generation {base} of term {rows.store.term} were left out: see {path}"
        log.critical("%s", why)
        await self._alert(*unmerged.ALERT, why)

    async def _tell_of_standbys(self) -> None:
        """Alerts when commits go on without standbys, and when they wait for them again."""
        while True:
            why = await self._told.get()
            if why:
                log.error("commits do not wait for standbys: %s", why)
            else:
                log.warning("commits wait for standbys again")
            await self._alert(NAMES[0] if why else NAMES[1], 2 if why else 4, why)

    async def _alert(self, name: str, priority: int, body: str) -> None:
        host = self._rows.host
        if not host:
            return
        alert = Alert(
            id=str(uuid.uuid4()),
            name=name,
            priority=priority,
            cls="Host",
            obj_uuid=host,
            body=body,
            time=time.time(),
        )
        try:
            await self._bus.publish(ALERT, alert, cls=alert.cls, priority=str(priority), name=name)
        except BusError as error:
            log.error("nobody can be told of %s: %s", name, error)


def _grant(wish: _Wish, promoted: contract.Promoted) -> None:
    if not wish.done.done():
        wish.done.set_result(promoted)


def _fail(wish: _Wish, error: ApiError) -> None:
    if not wish.done.done():
        wish.done.set_exception(error)
        wish.done.exception()  # its caller may have gone
