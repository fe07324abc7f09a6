"""`event.register`, `unregister` and `next`: the older way, one subscription per session and one queue for all.

Events are queued only while some session wants them, each with the state of its moment. The queue holds so many bytes;
what had to be dropped before a session that wanted it has seen it is EVENTS_LOST (`wire-protocol` 7.4).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from services.api import sessions
from services.api.api import Api
from services.api.events.changes import Kind
from services.api.events.encoding import encode
from services.api.events.subscription import TOLD, Subscription
from services.api.records import row_fragment
from services.api.wire.codec import Codec
from services.api.wire.jsonrpc import JSON
from shared.errors import ApiError
from shared.logs import track_id
from shared.store import Row, Touched

QUEUE: Final = 10_000_000
"""Bytes of JSON that the queue holds."""

DELAY: Final = 0.2
"""Seconds from a call to its first look: what belongs together comes together."""


@dataclass(frozen=True, slots=True)
class _Queued:
    """`row`: its state at that moment; for `del` the last one. `size`: bytes of JSON."""

    number: int
    timestamp: str
    cls: str
    kind: Kind
    ref: str
    row: Row
    size: int

    def encoded(self, codec: Codec) -> bytes:
        return encode(codec, self.number, self.timestamp, self.cls, self.kind, self.ref, self.row)


@dataclass(slots=True, eq=False)
class _Registration:
    """`seen`: number of the last event that was looked at for it. `lost`: one that it wanted went unseen."""

    seen: int
    texts: list[str] = field(default_factory=list)
    subscription: Subscription = field(default_factory=lambda: Subscription.parse(()))
    lost: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wants(self, event: _Queued) -> bool:
        return self.subscription.wants(event.cls, event.ref)


class NextQueue:
    """What registered sessions have not taken yet. `current_id`: number of the newest event."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._registered: dict[str, _Registration] = {}
        self._queue: deque[_Queued] = deque()
        self._size = 0
        self.current_id = 0
        self._refusal: ApiError | None = None

    def refuse(self, error: ApiError) -> None:
        """Ends all calls that wait, now and from now on."""
        self._refusal = error
        for registration in self._registered.values():
            registration.woken.set()

    # ---- clients

    def register(self, session: str, texts: Iterable[str]) -> None:
        self._subscribe(session, [*self._registration(session).texts, *texts])

    def unregister(self, session: str, texts: Iterable[str]) -> None:
        """Takes back what was registered exactly so. The session counts as registered afterwards."""
        gone = set(texts)
        self._subscribe(session, [text for text in self._registration(session).texts if text not in gone])

    def _registration(self, session: str) -> _Registration:
        return self._registered.setdefault(session, _Registration(seen=self.current_id))

    def _subscribe(self, session: str, texts: list[str]) -> None:
        registration = self._registration(session)
        registration.texts = list(dict.fromkeys(texts))
        registration.subscription = Subscription.parse(registration.texts)

    async def next(self, session: str, codec: Codec) -> bytes:
        """Events since the last call, each once: calls at the same time share them out."""
        registration = self._registered.get(session)
        if registration is None:
            raise ApiError("SESSION_NOT_REGISTERED", track_id(session))
        await asyncio.sleep(DELAY)
        while True:
            if self._refusal is not None:
                raise self._refusal
            sessions.find(self._api, session)
            if taken := self._take(registration):
                return codec.array([event.encoded(codec) for event in taken])
            registration.woken.clear()
            await registration.woken.wait()

    def _take(self, registration: _Registration) -> list[_Queued]:
        """Raises EVENTS_LOST, once; from there on the session sees what comes."""
        unseen = self.current_id - registration.seen
        registration.seen = self.current_id
        if registration.lost:
            registration.lost = False
            raise ApiError("EVENTS_LOST")
        newest = islice(self._queue, max(len(self._queue) - unseen, 0), None)
        return [event for event in newest if registration.wants(event)]

    # ---- the replica's side

    def on_commit(self, touched: Iterable[Touched]) -> None:
        if not self._registered:
            return
        for item in touched:
            if item.cls in TOLD:
                kind: Kind = "add" if item.kind == "add" else "del" if item.kind == "del" else "mod"
                self._append(item.cls, kind, item.ref, item.row)

    def heartbeat(self) -> None:
        """A change of the pool that is none."""
        if self._registered:
            for ref, row in self._api.store.tables["pool"].rows.items():
                self._append("pool", "mod", ref, row)

    def session_ended(self, session: str) -> None:
        registration = self._registered.pop(session, None)
        if registration is not None:
            registration.woken.set()
        if not self._registered:
            self._queue.clear()
            self._size = 0

    def _append(self, cls: str, kind: Kind, ref: str, row: Row) -> None:
        wanting = [one for one in self._registered.values() if one.subscription.wants(cls, ref)]
        if not wanting:
            return
        size = len(row_fragment(JSON, cls, row))
        moment = Row(row.fields, row.created, row.modified)  # the row itself goes on to its next states
        moment.fragments = row.fragments
        self.current_id += 1
        self._queue.append(_Queued(self.current_id, f"{int(time.time())}.", cls, kind, ref, moment, size))
        self._size += size
        while self._size > QUEUE:
            self._drop()
        for one in wanting:
            one.woken.set()

    def _drop(self) -> None:
        oldest = self._queue.popleft()
        self._size -= oldest.size
        for one in self._registered.values():
            one.lost = one.lost or (one.seen < oldest.number and one.wants(oldest))
