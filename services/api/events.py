"""`event.from` and `event.next`: changes of rows, answered from the replica.

A waiting call is a coroutine on a future. Every commit looks up who subscribed to the classes it touched and wakes only
those; each then joins fragments that were encoded once for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from services.api import implicit
from services.api.api import Api
from services.api.wire.codec import Codec
from services.api.wire.unmarshal import integer
from shared.contracts.db import Delta
from shared.datamodel import model
from shared.datamodel.types import STRING, RecordType
from shared.errors import ApiError
from shared.logs import track_id
from shared.store import Row, Store, Touched

MESSAGE: Final = "message"
LONGEST: Final = 86400.0
"""Seconds that a call waits at most."""

NEXT_QUEUE: Final = 20_000
"""Events kept for a slow `event.next` client; beyond, EVENTS_LOST."""

CLASSES: Final = {name.lower(): name for name, cls in model.classes.items() if cls.gen_events or name == MESSAGE}
"""Lower-cased name, as events carry it, to class."""

Kind = Literal["add", "mod", "del"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client asked to hear of: `*`, a class, or one object of a class."""

    everything: bool
    classes: frozenset[str]
    objects: frozenset[tuple[str, str]]

    @staticmethod
    def parse(texts: Iterable[str]) -> Subscription:
        everything = False
        classes: set[str] = set()
        objects: set[tuple[str, str]] = set()
        for text in texts:
            name, slash, ref = text.partition("/")
            if text == "*":
                everything = True
            elif slash:
                objects.add((CLASSES.get(name.lower(), ""), ref))
            else:
                classes.add(CLASSES.get(name.lower(), ""))
        return Subscription(everything, frozenset(classes), frozenset(objects))

    def wants(self, cls: str, ref: str) -> bool:
        return self.everything or cls in self.classes or (cls, ref) in self.objects

    def touched_classes(self) -> Iterable[str]:
        """Classes whose changes may matter."""
        if self.everything:
            return CLASSES.values()
        return self.classes | {cls for cls, _ in self.objects}

    @property
    def wants_messages(self) -> bool:
        return self.everything or MESSAGE in self.classes or any(cls == MESSAGE for cls, _ in self.objects)


@dataclass(frozen=True, slots=True)
class Token:
    """How far a client has seen: generation of the rows, and of messages. Zero padding makes tokens sort as text."""

    generation: int
    messages: int

    @staticmethod
    def parse(text: str) -> Token:
        """ "" is the beginning. Raises EVENT_FROM_TOKEN_PARSE_FAILURE [token]."""
        if not text:
            return Token(0, 0)
        first, comma, second = text.partition(",")
        try:
            if not comma:
                raise ValueError
            return Token(integer(first), integer(second))
        except ValueError:
            raise ApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", text) from None

    def after(self, events: Iterable[Event]) -> Token:
        """The token of one who has seen these events too. It stays where it is when there are none."""
        generation, messages = self.generation, self.messages
        for event in events:
            seen = event.generation if event.row is None else max(event.generation, event.row.modified)
            if event.cls == MESSAGE:
                messages = max(messages, seen)
            else:
                generation = max(generation, seen)
        return Token(generation, messages)

    def __str__(self) -> str:
        return f"{self.generation:020d},{self.messages:020d}"


@dataclass(frozen=True, slots=True)
class Event:
    """`generation`: when it happened. `row`: None for `del` of `event.from`."""

    generation: int
    cls: str
    kind: Kind
    ref: str
    row: Row | None


def since(store: Store, subscription: Subscription, token: Token) -> list[Event]:
    """What happened after the token: messages, then all `add`, `mod`, `del` (`wire-protocol` 7.2).

    Changes of one object are one event with its latest state; an object made and destroyed in between is none.
    """
    messages: list[Event] = []
    found: dict[str, list[Event]] = {"add": [], "mod": [], "del": []}
    for event in _changed(store, subscription, token):
        (messages if event.cls == MESSAGE else found[event.kind]).append(event)
    return [*messages, *found["add"], *found["mod"], *found["del"]]


def _changed(store: Store, subscription: Subscription, token: Token) -> Iterator[Event]:
    oldest = min(token.generation, token.messages) if subscription.wants_messages else token.generation
    recent = store.changes_since(oldest)
    if recent is not None:
        for cls, ref in recent:
            if cls.lower() in CLASSES and subscription.wants(cls, ref):
                after = token.messages if cls == MESSAGE else token.generation
                yield from _event(store, cls, ref, after)
        return
    for cls in subscription.touched_classes():
        table = store.tables.get(cls)
        if table is None:
            continue
        after = token.messages if cls == MESSAGE else token.generation
        for ref in table.rows:
            if subscription.wants(cls, ref):
                yield from _event(store, cls, ref, after)
        for created, deleted, ref in table.tombstones:
            if deleted > after and created <= after and ref not in table.rows and subscription.wants(cls, ref):
                yield Event(deleted, cls, "del", ref, None)


def _event(store: Store, cls: str, ref: str, after: int) -> Iterator[Event]:
    table = store.tables[cls]
    row = table.rows.get(ref)
    if row is not None:
        if row.created > after:
            yield Event(row.created, cls, "add", ref, row)
        elif row.modified > after:
            yield Event(row.modified, cls, "mod", ref, row)
        return
    for created, deleted, gone in reversed(table.tombstones):
        if gone == ref:
            if deleted > after and created <= after:
                yield Event(deleted, cls, "del", ref, None)
            return


def counts(store: Store) -> dict[str, int]:
    """Rows of every class by its lower-cased name: how a client that slept too long notices."""
    tables = store.tables
    return {name.lower(): len(tables[name].rows) if name in tables else 0 for name in model.classes}


@dataclass(slots=True, eq=False)
class _Waiter:
    subscription: Subscription
    session: str
    woken: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Registration:
    """One session's `event.register` subscriptions and the events queued for its `event.next`."""

    texts: list[str] = field(default_factory=list)
    subscription: Subscription = field(default_factory=lambda: Subscription.parse(()))
    queue: list[tuple[int, Event]] = field(default_factory=list)
    lost: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class EventHub:
    """Who waits for what."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiters: dict[str, dict[_Waiter, None]] = {}
        self._by_session: dict[str, dict[_Waiter, None]] = {}
        self._registered: dict[str, _Registration] = {}
        self._next_id = 0
        api.replica.watch(self._on_commit)

    @property
    def waiting(self) -> int:
        return sum(len(waiters) for waiters in self._by_session.values())

    @property
    def current_id(self) -> int:
        return self._next_id

    # ---- event.from

    async def wait(self, session: str, texts: list[str], token_text: str, timeout: float, codec: Codec) -> bytes:
        """The encoded answer of `event.from`. Raises SESSION_INVALID [session] when the session ends meanwhile."""
        token = Token.parse(token_text)
        subscription = Subscription.parse(texts)
        limit = LONGEST if timeout < 0 or timeout > LONGEST else timeout
        deadline = time.monotonic() + limit
        while True:
            store = self._api.store
            if store.row("session", session) is None:
                raise ApiError("SESSION_INVALID", session)
            events = since(store, subscription, token)
            left = deadline - time.monotonic()
            if events or left <= 0:
                return self._answer(codec, store, events, token.after(events))
            await self._change(session, subscription, left)

    async def _change(self, session: str, subscription: Subscription, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(subscription, session, loop.create_future())
        for cls in subscription.touched_classes():
            self._waiters.setdefault(cls, {})[waiter] = None
        self._by_session.setdefault(session, {})[waiter] = None
        timer = loop.call_later(timeout, _wake, waiter)
        try:
            await waiter.woken
        finally:
            timer.cancel()
            for cls in subscription.touched_classes():
                self._waiters[cls].pop(waiter, None)
            ours = self._by_session.get(session)
            if ours is not None:
                ours.pop(waiter, None)
                if not ours:
                    del self._by_session[session]

    def _answer(self, codec: Codec, store: Store, events: list[Event], token: Token) -> bytes:
        text = codec.encoder(STRING)
        rows = [encode(codec, event, "0.0") for event in events]
        valid = codec.record([codec.member(name, codec.native_int(count)) for name, count in counts(store).items()])
        return codec.record(
            [
                codec.member("events", codec.array(rows)),
                codec.member("valid_ref_counts", valid),
                codec.member("token", text(str(token))),
            ]
        )

    # ---- event.register, next

    def register(self, session: str, texts: list[str]) -> None:
        registration = self._registered.setdefault(session, _Registration())
        registration.texts += texts
        registration.subscription = Subscription.parse(registration.texts)

    def unregister(self, session: str, texts: list[str]) -> None:
        registration = self._registered.setdefault(session, _Registration())
        registration.texts = [text for text in registration.texts if text not in texts]
        registration.subscription = Subscription.parse(registration.texts)

    async def next(self, session: str, codec: Codec) -> bytes:
        """The encoded answer of `event.next`. Raises SESSION_NOT_REGISTERED [trackid], EVENTS_LOST, SESSION_INVALID."""
        registration = self._registered.get(session)
        if registration is None:
            raise ApiError("SESSION_NOT_REGISTERED", track_id(session))
        while not registration.queue and not registration.lost:
            registration.woken.clear()
            await registration.woken.wait()
            if self._api.store.row("session", session) is None:
                raise ApiError("SESSION_INVALID", session)
        if registration.lost:
            registration.lost = False
            registration.queue.clear()
            raise ApiError("EVENTS_LOST")
        taken, registration.queue = registration.queue, []
        stamp = f"{int(time.time())}."
        return codec.array([encode(codec, event, stamp, number) for number, event in taken])

    # ---- the replica's side

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        woken: dict[_Waiter, None] = {}
        for item in touched:
            if item.cls == "session":
                if item.kind == "del":
                    self._session_ended(item.ref)
                continue
            for waiter in self._waiters.get(item.cls, ()):
                if waiter not in woken and waiter.subscription.wants(item.cls, item.ref):
                    woken[waiter] = None
            if self._registered and item.cls.lower() in CLASSES:
                self._queue(item)
        for waiter in woken:
            _wake(waiter)

    def _queue(self, item: Touched) -> None:
        kind: Kind = "add" if item.kind == "add" else "del" if item.kind == "del" else "mod"
        # The store goes on changing the lists of relations in place; this event shows the row as it is now.
        fields = {name: list(value) if type(value) is list else value for name, value in item.row.fields.items()}
        row = Row(fields, item.row.created, item.row.modified)
        event = Event(item.row.modified, item.cls, kind, item.ref, row)
        self._next_id += 1
        for registration in self._registered.values():
            if not registration.subscription.wants(item.cls, item.ref):
                continue
            registration.queue.append((self._next_id, event))
            if len(registration.queue) > NEXT_QUEUE:
                registration.queue.clear()
                registration.lost = True
            registration.woken.set()

    def _session_ended(self, session: str) -> None:
        for waiter in self._by_session.get(session, ()):
            _wake(waiter)
        registration = self._registered.pop(session, None)
        if registration is not None:
            registration.woken.set()


def _wake(waiter: _Waiter) -> None:
    if not waiter.woken.done():
        waiter.woken.set_result(None)


def encode(codec: Codec, event: Event, timestamp: str, number: int | None = None) -> bytes:
    """An event as clients see it: ids and timestamps are text, whatever the model says."""
    text = codec.encoder(STRING)
    members = [
        codec.member("id", text(str(event.generation if number is None else number))),
        codec.member("timestamp", text(timestamp)),
        codec.member("class", text(event.cls.lower())),
        codec.member("operation", text(event.kind)),
        codec.member("ref", text(event.ref)),
    ]
    if event.row is not None:
        members.append(codec.member("snapshot", implicit.row_fragment(codec, event.cls, event.row)))
    return codec.record(members)


def relayed(codec: Codec, answer: Any) -> bytes:
    """What another host answered in JSON, in that codec: the batch of `event.from`, or the events of `event.next`."""
    if isinstance(answer, list):
        return codec.array([_relayed_event(codec, event) for event in answer])
    counts = [codec.member(name, codec.native_int(count)) for name, count in answer["valid_ref_counts"].items()]
    return codec.record(
        [
            codec.member("events", codec.array([_relayed_event(codec, event) for event in answer["events"]])),
            codec.member("valid_ref_counts", codec.record(counts)),
            codec.member("token", codec.encoder(STRING)(answer["token"])),
        ]
    )


def _relayed_event(codec: Codec, event: dict[str, Any]) -> bytes:
    members = [
        codec.member(name, codec.encoder(RecordType(CLASSES[event["class"]]) if name == "snapshot" else STRING)(value))
        for name, value in event.items()
    ]
    return codec.record(members)
