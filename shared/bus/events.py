"""Events: published without waiting for anybody, delivered one after the other to each subscription.

While the connection is away the newest `KEPT` events wait; older ones are dropped and counted. A durable
subscription gets each event at least once: an event whose listener fails five times goes to the `dead` exchange.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.bus import envelope
from shared.bus.context import CallContext, current
from shared.bus.contract import Payload, Topic
from shared.bus.interface import Listener
from shared.bus.timing import backoff
from shared.bus.transport import EventDelivery, Subscribed, Transport
from shared.errors import internal_error

log = logging.getLogger("bus")

KEPT = 10_000
"""Events that wait for the connection to come back, newest first to be kept."""
BACKLOG = 50_000
"""Events that wait for one subscription's listener; beyond it the oldest are dropped, and it is told in the log."""
ATTEMPTS = 5
"""Of a durable subscription's listener, before its event is buried."""
TURN = 100
"""Events handled before other work of the loop gets its turn."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    key: str
    also: tuple[str, ...]
    body: bytes


class Publisher:
    def __init__(self, transport: Transport, counters: Counter[str]) -> None:
        self._transport = transport
        self._counters = counters
        self._waiting: deque[_Waiting] = deque()

    async def publish(
        self, topic: Topic[Payload], payload: Payload, also: tuple[str, ...], words: dict[str, str]
    ) -> None:
        event = _Waiting(topic.key(**words), also, _encode(topic, payload))
        if self._transport.ready and not self._waiting:
            self._send(event)
            if self._transport.congested:
                await self._transport.uncongested()
            return
        self._waiting.append(event)
        if len(self._waiting) > KEPT:
            self._waiting.popleft()
            self._counters["events_dropped"] += 1

    def ready(self) -> None:
        while self._waiting and self._transport.ready:
            self._send(self._waiting.popleft())

    def metrics(self) -> dict[str, int]:
        return {"events_waiting": len(self._waiting)}

    def _send(self, event: _Waiting) -> None:
        self._counters["events_published"] += 1
        self._transport.event(event.key, event.also, event.body)


def _encode(topic: Topic[Any], payload: Any) -> bytes:
    context = current.get()
    try:
        return envelope.encode(
            envelope.Event(
                body=payload,
                task=context.task,
                session=context.session,
                user=context.user,
                term=max(context.term, 0),
                trace=context.traceparent,
            )
        )
    except envelope.EnvelopeError as error:
        raise internal_error(f"the event {topic.pattern} {error}") from error


class TopicSubscription:
    """One listener and the task that calls it."""

    def __init__(
        self,
        transport: Transport,
        counters: Counter[str],
        topic: Topic[Any],
        listener: Listener[Any],
        durable: str,
        source: str,
        on_end: Callable[[TopicSubscription], None],
    ) -> None:
        self._transport = transport
        self._counters = counters
        self._topic = topic
        self._listener = listener
        self._durable = durable
        self._source = source
        self._on_end = on_end
        self._backlog: deque[EventDelivery] = deque()
        self._arrived = asyncio.Event()
        self._dropping = False
        self._ended = False
        self._subscribed: Subscribed | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._task = asyncio.create_task(self._work(), name=f"events {self._source}")
        try:
            self._subscribed = await self._transport.subscribe(self._source, self._durable, self.receive)
        except BaseException:
            self._task.cancel()
            self._on_end(self)
            raise

    async def cancel(self) -> None:
        """Ends it; a listener that runs is cancelled, unless it is the one that asks. A durable queue stays."""
        self._on_end(self)
        if self._subscribed is not None:
            await self._subscribed.cancel()
        self._ended = True
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def receive(self, event: EventDelivery) -> None:
        self._backlog.append(event)
        if len(self._backlog) > BACKLOG and not self._durable:
            self._backlog.popleft()
            self._counters["events_dropped"] += 1
            if not self._dropping:
                log.error("the listener of %s is too slow: events are dropped", self._source)
            self._dropping = True
        self._arrived.set()

    def lost(self) -> None:
        """The broker delivers again what was not settled."""
        if self._durable:
            self._backlog.clear()

    async def _work(self) -> None:
        handled = 0
        while not self._ended:
            if not self._backlog:
                self._dropping = False
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._handle(self._backlog.popleft())
            handled += 1
            if handled % TURN == 0:
                await asyncio.sleep(0)

    async def _handle(self, event: EventDelivery) -> None:
        try:
            message = envelope.decode_event(event.body)
            payload = msgspec.convert(message.body, self._topic.payload, str_keys=True)
        except (envelope.EnvelopeError, msgspec.ValidationError) as error:
            self._bury(event, f"not an event of {self._topic.pattern}: {error}")
            return
        current.set(
            CallContext(
                task=message.task,
                session=message.session,
                user=message.user,
                term=message.term,
                traceparent=message.trace,
            )
        )
        attempt = 0
        while True:
            try:
                outcome = self._listener(payload, event.key)
                if outcome is not None:
                    await outcome
            except Exception as error:
                attempt += 1
                log.exception("the listener of %s failed (attempt %d)", self._source, attempt)
                if not self._durable:
                    return
                if attempt >= ATTEMPTS:
                    self._bury(event, f"its listener failed {attempt} times: {type(error).__name__}: {error}")
                    return
                await asyncio.sleep(backoff(attempt, 0.05, 5.0))
            else:
                event.settle()
                return

    def _bury(self, event: EventDelivery, reason: str) -> None:
        self._counters["dead"] += 1
        log.error("an event %s cannot be handled: %s", event.key, reason)
        self._transport.bury(event.body, reason, self._durable or self._source)
        event.settle()
