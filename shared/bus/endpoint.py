"""The `Bus` of one connection: the calling side, the serving side and the events, over any transport."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from shared.bus.caller import Caller
from shared.bus.context import CallContext
from shared.bus.contract import Method, Payload, Reply, Request, Topic
from shared.bus.events import Publisher, TopicSubscription
from shared.bus.interface import BusError, Handler, Listener, StreamHandler, Subscription
from shared.bus.responder import Responder
from shared.bus.timing import DEFAULT, Timing
from shared.bus.transport import Delivery, Transport
from shared.contracts import task

log = logging.getLogger("bus")

COUNTERS = (
    "calls",
    "served",
    "duplicates",
    "probes",
    "retransmits",
    "returned",
    "deadline_exceeded",
    "undecodable",
    "dead",
    "events_published",
    "events_dropped",
)


class Endpoint:
    """Implements `shared.bus.interface.Bus`."""

    def __init__(self, transport: Transport, timing: Timing = DEFAULT) -> None:
        self.transport = transport
        self._counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._caller = Caller(transport, timing, self._counters)
        self._responder = Responder(transport, timing, self._counters)
        self._publisher = Publisher(transport, self._counters)
        self._subscriptions: set[TopicSubscription] = set()
        self._cancels: TopicSubscription | None = None
        self._on_reconnect: list[Callable[[], Awaitable[None]]] = []
        self._reconnecting: asyncio.Task[None] | None = None
        transport.owner = self

    # ---- calls

    async def call(
        self,
        method: Method[Request, Reply],
        request: Request,
        *,
        host: str | None = None,
        timeout: float | None = None,
        context: CallContext | None = None,
    ) -> Reply:
        return await self._caller.call(method, request, host, timeout, context)

    def stream(
        self,
        method: Method[Request, Reply],
        request: Request,
        *,
        host: str | None = None,
        timeout: float | None = None,
        context: CallContext | None = None,
    ) -> AsyncIterator[Reply]:
        return self._caller.stream(method, request, host, timeout, context)

    # ---- serving

    async def serve(
        self,
        method: Method[Request, Reply],
        handler: Handler[Request, Reply] | StreamHandler[Request, Reply],
        *,
        host: str | None = None,
    ) -> None:
        self._responder.add(method.queue(host), method, handler)

    async def start_consuming(
        self, service: str, *, host: str | None = None, again: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        queue = f"{service}.{host}" if host else service
        if self._cancels is None:
            self._cancels = self._subscription(task.CANCEL, self._cancel_task, "", {})
            await self._cancels.open()
        await self.transport.open_queue(queue, lambda delivery: self._received(queue, delivery), again)

    async def stop_consuming(self, service: str, *, host: str | None = None) -> None:
        await self.transport.close_queue(f"{service}.{host}" if host else service)

    async def evict(self, service: str, *, host: str | None = None) -> None:
        queue = f"{service}.{host}" if host else service
        try:
            await self.transport.delete_queue(queue)
        except OSError as error:
            raise BusError("INTERNAL_ERROR", f"the consumer of {queue} cannot be evicted: {error}") from error

    def _received(self, queue: str, delivery: Delivery) -> None:
        self._responder.receive(queue, delivery)
        if self._responder.term > self._caller.term:
            self._caller.term = self._responder.term

    def _cancel_task(self, event: task.Cancel, _: str) -> None:
        self._responder.cancel_task(event.task)

    # ---- events

    async def publish(
        self, topic: Topic[Payload], payload: Payload, *, also: tuple[str, ...] = (), **words: str
    ) -> None:
        await self._publisher.publish(topic, payload, also, words)

    async def subscribe(
        self, topic: Topic[Payload], listener: Listener[Payload], *, durable: str = "", **words: str
    ) -> Subscription:
        subscription = self._subscription(topic, listener, durable, words)
        await subscription.open()
        return subscription

    def _subscription(
        self, topic: Topic[Any], listener: Listener[Any], durable: str, words: dict[str, str]
    ) -> TopicSubscription:
        binding = topic.binding(**words)
        subscription = TopicSubscription(
            self.transport, self._counters, topic, listener, durable, binding, self._subscriptions.discard
        )
        self._subscriptions.add(subscription)
        return subscription

    # ---- the pool's term

    @property
    def term(self) -> int:
        """The highest term this process has seen; 0: none."""
        return self._caller.term

    def observe_term(self, term: int) -> None:
        """From now on requests of lower terms are refused, and calls made for nobody carry this one."""
        self._caller.term = self._responder.term = max(self.term, term)

    # ---- the connection

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        self._on_reconnect.append(callback)

    @property
    def connected(self) -> bool:
        return self.transport.ready

    def metrics(self) -> dict[str, Any]:
        return {
            **self._counters,
            **self._caller.metrics(),
            **self._responder.metrics(),
            **self._publisher.metrics(),
            "reconnects": self.transport.reconnects,
            "connected": int(self.connected),
            "term": self.term,
        }

    async def close(self) -> None:
        """Lets running handlers finish, ends calls that wait, closes the connection."""
        for queue in self._responder.queues():
            await self.transport.close_queue(queue)
        await self._responder.close()
        await self._close()

    async def abandon(self) -> None:
        """Ends like a process that was killed: handlers are cancelled, nobody gets an answer. For tests."""
        await self._responder.abandon()
        await self._close()

    async def _close(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        for subscription in list(self._subscriptions):
            await subscription.cancel()
        self._caller.close()
        await self.transport.close()

    # ---- `Owner`: what the transport tells

    def ready(self, again: bool) -> None:
        self._responder.ready()
        self._caller.ready(again)
        self._publisher.ready()
        if again and self._on_reconnect:
            if self._reconnecting is not None:
                self._reconnecting.cancel()
            self._reconnecting = asyncio.create_task(self._reconnected(), name="bus reconnected")

    def lost(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.lost()

    def answered(self, id: str, body: bytes) -> None:
        self._caller.answered(id, body)

    def returned(self, id: str, kind: str) -> None:
        self._caller.returned(id, kind)

    async def _reconnected(self) -> None:
        for callback in self._on_reconnect:
            try:
                await callback()
            except Exception:
                log.exception("a callback after the reconnect failed")
