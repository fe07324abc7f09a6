"""The bus in one process, for unit tests: the broker's behaviour without the broker.

    broker = MemoryBroker()
    a, b = await broker.connect("a"), await broker.connect("b")

Messages are encoded and decoded as on the real one. `disconnect`, `kill` and `restart` break it as a network or a
broker would; `Endpoint.abandon` ends one party like kill -9.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

from shared.bus.endpoint import Endpoint
from shared.bus.timing import DEFAULT, Timing, backoff
from shared.bus.transport import Delivery, EventDelivery, Owner

RECONNECT_AFTER = 0.01


class Dead(NamedTuple):
    """A message on the `dead` exchange."""

    body: bytes
    reason: str
    source: str


@dataclass(eq=False)
class _Queue:
    """A queue of events. `durable`: it keeps what nobody took, and what was not settled comes back."""

    bindings: set[str]
    durable: bool
    consumer: _MemorySubscription | None = None
    waiting: deque[tuple[str, bytes]] = field(default_factory=deque)
    unsettled: dict[int, tuple[str, bytes]] = field(default_factory=dict)


class MemoryBroker:
    def __init__(self) -> None:
        self.up = True
        self.dead: list[Dead] = []
        self._consumers: dict[str, MemoryTransport] = {}
        self._transports: dict[str, MemoryTransport] = {}
        self._events: list[_Queue] = []
        self._durable: dict[str, _Queue] = {}
        self._tags = itertools.count(1)
        self._cut: set[MemoryTransport] = set()

    async def connect(self, name: str = "", timing: Timing = DEFAULT) -> Endpoint:
        transport = MemoryTransport(self)
        endpoint = Endpoint(transport, timing)
        transport.connect()
        return endpoint

    def publish_raw(self, queue: str, body: bytes, reply_to: str = "") -> None:
        """A request that no `Bus` has made."""
        self._consumers[queue].deliver(queue, Delivery("raw", reply_to, body))

    def disconnect(self, bus: Endpoint) -> None:
        """The connection breaks; it is made again in a moment."""
        transport = bus.transport
        assert isinstance(transport, MemoryTransport)
        transport.lose()

    def cut(self, bus: Endpoint) -> None:
        """The connection breaks, and stays so until `heal`."""
        transport = bus.transport
        assert isinstance(transport, MemoryTransport)
        self._cut.add(transport)
        transport.lose()

    def heal(self, bus: Endpoint) -> None:
        self._cut = {transport for transport in self._cut if transport is not bus.transport}

    def kill(self) -> None:
        """The broker goes away with all that was not durable."""
        self.up = False
        for transport in list(self._transports.values()):
            transport.lose()

    def restart(self) -> None:
        self.up = True

    # ---- for transports

    def reachable(self, transport: MemoryTransport) -> bool:
        return self.up and transport not in self._cut

    def attach(self, address: str, transport: MemoryTransport) -> None:
        self._transports[address] = transport

    def detach(self, address: str, transport: MemoryTransport) -> None:
        self._transports.pop(address, None)
        self._consumers = {queue: owner for queue, owner in self._consumers.items() if owner is not transport}
        for queue in list(self._events):
            if queue.consumer is not None and queue.consumer.transport is transport:
                self.release(queue)

    def take_queue(self, queue: str, transport: MemoryTransport) -> bool:
        """Whether the transport consumes the queue now, alone."""
        return self._consumers.setdefault(queue, transport) is transport

    def leave_queue(self, queue: str, transport: MemoryTransport) -> None:
        if self._consumers.get(queue) is transport:
            del self._consumers[queue]

    def delete_queue(self, queue: str) -> None:
        consumer = self._consumers.pop(queue, None)
        if consumer is not None:
            consumer.evicted(queue)

    def route_request(self, queue: str, id: str, kind: str, body: bytes, reply_to: str) -> None:
        consumer = self._consumers.get(queue)
        if consumer is not None:
            consumer.deliver(queue, Delivery(id, reply_to, body))
            return
        caller = self._transports.get(reply_to)
        if caller is not None:
            caller.owner.returned(id, kind)

    def route_reply(self, to: str, id: str, body: bytes) -> None:
        caller = self._transports.get(to)
        if caller is not None:
            caller.owner.answered(id, body)

    def route_event(self, keys: tuple[str, ...], body: bytes) -> None:
        for queue in self._events:
            if any(topic_matches(binding, key) for binding in queue.bindings for key in keys):
                queue.waiting.append((keys[0], body))
                self._pump(queue)

    def bind(self, subscription: _MemorySubscription) -> _Queue:
        name = subscription.durable
        queue = self._durable.get(name) if name else None
        if queue is None:
            queue = _Queue(set(), bool(name))
            self._events.append(queue)
            if name:
                self._durable[name] = queue
        queue.bindings.add(subscription.binding)
        queue.consumer = subscription
        self._pump(queue)
        return queue

    def release(self, queue: _Queue) -> None:
        """The consumer has gone: a durable queue goes on collecting."""
        queue.consumer = None
        if queue.durable:
            queue.waiting.extendleft(reversed(queue.unsettled.values()))
            queue.unsettled.clear()
        elif queue in self._events:
            self._events.remove(queue)

    def _pump(self, queue: _Queue) -> None:
        while queue.waiting and queue.consumer is not None:
            key, body = queue.waiting.popleft()
            tag = next(self._tags)
            if queue.durable:
                queue.unsettled[tag] = (key, body)
            queue.consumer.receive(EventDelivery(key, body, partial(queue.unsettled.pop, tag, None)))


class _MemorySubscription:
    def __init__(
        self, transport: MemoryTransport, binding: str, durable: str, receive: Callable[[EventDelivery], None]
    ) -> None:
        self.transport = transport
        self.binding = binding
        self.durable = durable
        self.receive = receive
        self.queue: _Queue | None = None

    async def cancel(self) -> None:
        self.transport.unsubscribe(self)


class MemoryTransport:
    """Implements `shared.bus.transport.Transport`. What is sent arrives in a later turn of the loop."""

    owner: Owner

    def __init__(self, broker: MemoryBroker) -> None:
        self.ready = False
        self.congested = False
        self.reconnects = 0
        self._broker = broker
        self._connections = itertools.count(1)
        self._address = ""
        self._queues: dict[str, Callable[[Delivery], None]] = {}
        self._again: dict[str, Callable[[], Awaitable[None]]] = {}
        self._taking: dict[str, asyncio.Task[None]] = {}
        """What consumes a queue anew."""
        self._subscriptions: list[_MemorySubscription] = []
        self._reconnecting: asyncio.Task[None] | None = None
        self._closed = False

    async def uncongested(self) -> None:
        return

    def connect(self) -> None:
        again = bool(self._address)
        self._address = f"reply.{id(self):x}.{next(self._connections)}"
        self._broker.attach(self._address, self)
        for subscription in self._subscriptions:
            subscription.queue = self._broker.bind(subscription)
        for queue in self._queues:
            if queue not in self._again:
                self._broker.take_queue(queue, self)
        self.ready = True
        self.reconnects += again
        self.owner.ready(again)

    def lose(self) -> None:
        if not self.ready:
            return
        self.ready = False
        self._broker.detach(self._address, self)
        self.owner.lost()
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        await asyncio.sleep(RECONNECT_AFTER)
        attempt = 0
        while not self._broker.reachable(self):
            await asyncio.sleep(backoff(attempt, RECONNECT_AFTER, 0.2))
            attempt += 1
        self.connect()
        for queue in list(self._queues):
            self._take_again(queue)

    def _take_again(self, queue: str) -> None:
        if (earlier := self._taking.pop(queue, None)) is not None:
            earlier.cancel()
        self._taking[queue] = asyncio.create_task(self._taken_again(queue))

    async def _taken_again(self, queue: str) -> None:
        if queue in self._again:
            await self._again[queue]()
        await self._take(queue)

    def evicted(self, queue: str) -> None:
        self._take_again(queue)

    def request(self, queue: str, id: str, kind: str, body: bytes, expires: float) -> None:
        self._later(self._broker.route_request, queue, id, kind, body, self._address)

    def reply(self, to: str, id: str, body: bytes) -> None:
        self._later(self._broker.route_reply, to, id, body)

    def event(self, key: str, also: tuple[str, ...], body: bytes) -> None:
        self._later(self._broker.route_event, (key, *also), body)

    def bury(self, body: bytes, reason: str, source: str) -> None:
        self._broker.dead.append(Dead(body, reason, source))

    def _later(self, route: Callable[..., None], *arguments: object) -> None:
        if self.ready:
            asyncio.get_running_loop().call_soon(self._route, self._address, route, *arguments)

    def _route(self, address: str, route: Callable[..., None], *arguments: object) -> None:
        """What a lost connection had not written is gone."""
        if self.ready and self._address == address:
            route(*arguments)

    def deliver(self, queue: str, delivery: Delivery) -> None:
        self._queues[queue](delivery)

    async def open_queue(
        self,
        queue: str,
        receive: Callable[[Delivery], None],
        again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._queues[queue] = receive
        await self._take(queue)
        if again is not None:
            self._again[queue] = again

    async def delete_queue(self, queue: str) -> None:
        if not self.ready:
            raise ConnectionError("there is no connection to the broker")
        self._broker.delete_queue(queue)

    async def _take(self, queue: str) -> None:
        attempt = 0
        while queue in self._queues and not (self.ready and self._broker.take_queue(queue, self)):
            await asyncio.sleep(backoff(attempt, RECONNECT_AFTER, 0.2))
            attempt += 1

    async def close_queue(self, queue: str) -> None:
        await asyncio.sleep(0)  # what was sent to it before has arrived
        self._broker.leave_queue(queue, self)
        self._queues.pop(queue, None)
        self._again.pop(queue, None)
        if (taking := self._taking.pop(queue, None)) is not None:
            taking.cancel()

    async def subscribe(
        self, binding: str, durable: str, receive: Callable[[EventDelivery], None]
    ) -> _MemorySubscription:
        subscription = _MemorySubscription(self, binding, durable, receive)
        self._subscriptions.append(subscription)
        if self.ready:
            subscription.queue = self._broker.bind(subscription)
        return subscription

    def unsubscribe(self, subscription: _MemorySubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if subscription.queue is not None and subscription.queue.consumer is subscription:
            self._broker.release(subscription.queue)

    async def close(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        for taking in self._taking.values():
            taking.cancel()
        await asyncio.gather(*self._taking.values(), return_exceptions=True)
        self.ready = False
        self._queues.clear()
        self._broker.detach(self._address, self)


@lru_cache(maxsize=1024)
def _pattern(binding: str) -> re.Pattern[str]:
    """Matches keys whose every word is followed by a dot."""
    wild = {"*": r"[^.]*\.", "#": r"(?:[^.]*\.)*"}
    return re.compile("".join(wild.get(word, re.escape(word) + r"\.") for word in binding.split(".")))


def topic_matches(binding: str, key: str) -> bool:
    """AMQP's topic patterns: `*` is one word, `#` any number of words."""
    return _pattern(binding).fullmatch(key + ".") is not None
