"""`event.from`: changes of rows, answered from the replica.

A call that waits is a future in a group of those who want the same. A commit finds the groups it matters to by class
and by object; what happened is looked up and encoded once for a group, and told to its members a few at a time, so that
ten thousand of them do not keep everybody else waiting.

A call is answered as soon as there is something to tell. Two things are held back for a moment, so that many changes
come as one answer: a client that cannot keep up, because it has seen a change just now and finds the next one waiting;
and everybody, after a round in which very many were told. Whoever follows tasks alone never waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from services.api import sessions
from services.api.api import Api
from services.api.edge.dispatcher import Answer
from services.api.events.changes import counts, since
from services.api.events.encoding import Batch, Counts
from services.api.events.next_queue import NextQueue
from services.api.events.rounds import Rounds, Tell, tell
from services.api.events.subscription import Subscription
from services.api.events.tokens import BEGINNING, Token
from services.api.wire.codec import Codec
from shared.contracts.db import Delta
from shared.errors import ApiError
from shared.store import Touched

_Key = TypeVar("_Key", str, tuple[str, str])

LONGEST: Final = 86400.0
"""Seconds that a call waits at most."""

SHARED: Final = 64
SHARED_FOR: Final = 0.25
"""Batches, and for how many seconds they are kept, for clients that come with the same token while nothing changes."""


@dataclass(slots=True, eq=False)
class _Group:
    """Calls that wait for the same. `position`: nothing they want has happened up to there, and they know the rest.

    Their tokens may differ: what lies between is of no interest to any of them. A token from the future, which matches
    nothing until the generations get there, has a group of its own.
    """

    key: tuple[Subscription, Token | None]
    position: Token
    waiters: dict[_Waiter, None] = field(default_factory=dict)

    @property
    def subscription(self) -> Subscription:
        return self.key[0]


@dataclass(slots=True, eq=False)
class _Waiter:
    """`told`: what happened, None when the time is up."""

    session: str
    group: _Group
    told: asyncio.Future[Batch | None]


class EventHub:
    """Who waits for what."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._next = NextQueue(api)
        self._groups: dict[tuple[Subscription, Token | None], _Group] = {}
        self._by_class: dict[str, dict[_Group, None]] = {}
        self._by_object: dict[tuple[str, str], dict[_Group, None]] = {}
        self._by_session: dict[str, dict[_Waiter, None]] = {}
        self.rounds: Rounds[_Group, Batch] = Rounds(self._look)
        self._batches: dict[tuple[Subscription, Token], Batch] = {}
        self._counts: Counts | None = None
        """Of now, once somebody asks."""
        self._commits: deque[tuple[int, float]] = deque()
        """Generation and time of the commits of the last moment."""
        api.replica.watch(self._on_commit)

    @property
    def waiting(self) -> int:
        return sum(len(waiters) for waiters in self._by_session.values())

    # ---- event.from

    async def wait(self, session: str, texts: list[str], token_text: str, timeout: float, codec: Codec) -> Answer:
        """The answer of `event.from`. Raises SESSION_INVALID [session] when the session ends meanwhile,
        EVENT_FROM_TOKEN_PARSE_FAILURE.
        """
        token = Token.parse(token_text)
        subscription = Subscription.parse(texts)
        deadline = time.monotonic() + (timeout if 0 <= timeout <= LONGEST else LONGEST)
        sessions.find(self._api, session)  # nobody would tell a call that begins to wait after its session has ended
        batch = self._batch(subscription, token)
        if len(batch.changes):
            pause = min(self._pause(subscription, token), deadline - time.monotonic())
            if pause > 0:
                await asyncio.sleep(pause)
                sessions.find(self._api, session)
                batch = self._batch(subscription, token)
        if not len(batch.changes) and time.monotonic() < deadline:
            del batch
            batch = await self._change(session, subscription, token, deadline) or self._batch(subscription, token)
        return await batch.answer(codec, batch.changes.after(token, subscription))

    def _batch(self, subscription: Subscription, token: Token) -> Batch:
        """What has happened; the same object for all who ask until something changes."""
        known = self._batches.get((subscription, token))
        if known is None:
            store = self._api.store
            if self._counts is None:
                self._counts = Counts(counts(store))
            known = Batch(since(store, subscription, token), self._counts)
            if not self._batches:
                asyncio.get_running_loop().call_later(SHARED_FOR, self._batches.clear)
            if len(self._batches) < SHARED:
                self._batches[subscription, token] = known
        return known

    def _pause(self, subscription: Subscription, token: Token) -> float:
        """Seconds that a client with this token gets nothing new."""
        if token == BEGINNING or subscription.only_tasks:
            return 0.0
        seen = max(token) if subscription.wants_messages else token.generation
        for generation, at in reversed(self._commits):
            if generation <= seen:
                return at + self.rounds.gap - time.monotonic() if generation == seen else 0.0
        return 0.0

    async def _change(self, session: str, subscription: Subscription, token: Token, deadline: float) -> Batch | None:
        """What happens next, or None when the time is up. Nothing is waiting to be told."""
        loop = asyncio.get_running_loop()
        group = self._group(subscription, token)
        waiter = _Waiter(session, group, loop.create_future())
        group.waiters[waiter] = None
        self._by_session.setdefault(session, {})[waiter] = None
        timer = loop.call_later(deadline - time.monotonic(), tell, waiter.told, None)
        try:
            return await waiter.told
        finally:
            timer.cancel()
            self._leave(waiter)

    # ---- groups

    def _group(self, subscription: Subscription, token: Token) -> _Group:
        """The group that waits for this, found by every commit that matters to it."""
        now = self._api.store.generation
        ahead = token if max(token) > now else None
        group = self._groups.get((subscription, ahead))
        if group is None:
            group = _Group((subscription, ahead), ahead or Token(now, now))
            self._attach(group)
        return group

    def _attach(self, group: _Group) -> None:
        self._groups[group.key] = group
        for cls in group.subscription.classes:
            self._by_class.setdefault(cls, {})[group] = None
        for of in group.subscription.objects:
            self._by_object.setdefault(of, {})[group] = None

    def _detach(self, group: _Group) -> None:
        """Nobody joins it any more."""
        if self._groups.get(group.key) is not group:
            return
        del self._groups[group.key]
        for cls in group.subscription.classes:
            _discard(self._by_class, cls, group)
        for of in group.subscription.objects:
            _discard(self._by_object, of, group)

    def _leave(self, waiter: _Waiter) -> None:
        group = waiter.group
        group.waiters.pop(waiter, None)
        if not group.waiters:
            self._detach(group)
        ours = self._by_session.get(waiter.session)
        if ours is not None:
            ours.pop(waiter, None)
            if not ours:
                del self._by_session[waiter.session]

    # ---- the replica's side

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        now = time.monotonic()
        self._commits.append((self._api.store.generation, now))
        while self._commits[0][1] < now - self.rounds.gap:
            self._commits.popleft()
        self._batches.clear()
        self._counts = None
        for item in touched:
            if item.cls == "session" and item.kind == "del":
                self._session_ended(item.ref)
            for group in (*self._by_class.get(item.cls, ()), *self._by_object.get((item.cls, item.ref), ())):
                self._detach(group)
                if group.subscription.only_tasks:
                    self.rounds.add_at_once(group)
                else:
                    self.rounds.add(group)
        self._next.on_commit(touched)

    def _look(self, group: _Group) -> Iterator[Tell[Batch]]:
        """Its members are told what happened; if it comes to nothing, they go on waiting."""
        batch = self._batch(group.subscription, group.position)
        if len(batch.changes):
            return ((waiter.told, batch) for waiter in list(group.waiters))
        for waiter in group.waiters:
            waiter.group = self._group(group.subscription, group.key[1] or group.position)
            waiter.group.waiters[waiter] = None
        return iter(())

    def _session_ended(self, session: str) -> None:
        for waiter in self._by_session.get(session, ()):
            if not waiter.told.done():
                waiter.told.set_exception(ApiError("SESSION_INVALID", session))
        self._next.session_ended(session)

    def refuse(self, error: ApiError) -> None:
        """Ends all calls that wait: they would learn nothing here any more."""
        for waiters in list(self._by_session.values()):
            for waiter in waiters:
                if not waiter.told.done():
                    waiter.told.set_exception(error)
        self._next.refuse(error)

    # ---- event.register, unregister, next

    @property
    def current_id(self) -> int:
        return self._next.current_id

    def register(self, session: str, texts: Iterable[str]) -> None:
        self._next.register(session, texts)

    def unregister(self, session: str, texts: Iterable[str]) -> None:
        self._next.unregister(session, texts)

    async def next(self, session: str, codec: Codec) -> Answer:
        """The answer of `event.next`. Raises SESSION_NOT_REGISTERED [trackid], EVENTS_LOST, SESSION_INVALID."""
        return Answer(value=await self._next.next(session, codec))

    def heartbeat(self) -> None:
        """Something for clients of `event.next` every half minute, so that they see that the connection lives."""
        self._next.heartbeat()


def _discard(index: dict[_Key, dict[_Group, None]], key: _Key, group: _Group) -> None:
    groups = index[key]
    groups.pop(group, None)
    if not groups:
        del index[key]
