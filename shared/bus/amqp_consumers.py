"""What is consumed on a connection: queues of requests, and events for a while or for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from pika.spec import Basic, BasicProperties

from shared.bus.pika_channel import Channel, ChannelClosed, Connection
from shared.bus.timing import backoff
from shared.bus.transport import Delivery, EventDelivery

log = logging.getLogger("bus")

RPC, EVENTS, DEAD = "rpc", "events", "dead"
"""The exchanges."""
PREFETCH = 256
"""Requests that the broker may send before the earlier ones are accepted."""
DURABLE_PREFETCH = 20
ACKNOWLEDGE = 0.02
"""Seconds for which accepted requests wait to be acknowledged together."""
QUEUE_EXPIRES = 30_000
"""Milliseconds; removes a queue whose server died between declaring and consuming it."""
RETRY_FIRST, RETRY_LONGEST = 0.05, 1.0
"""Seconds between attempts to get a queue that another process consumes."""


class Session(Protocol):
    """The connection that is used now. `events`: the channel that passing subscriptions share."""

    connection: Connection
    events: Channel


class Consumer:
    """Something that is consumed on every session until it is removed."""

    def __init__(self, binding: str) -> None:
        self.binding = binding
        self.opened = asyncio.Event()
        self.attempted: asyncio.Future[None]

    def __str__(self) -> str:
        return self.binding

    async def run(self, session: Session) -> None:
        """Consumes; starts again when its channel is closed; ends with the session."""
        attempt, told = 0, ""
        while True:
            try:
                reason = await self.consume(session)
            except ChannelClosed as error:
                reason = error
            finally:
                if not self.attempted.done():
                    self.attempted.set_result(None)
            if reason.code == 0:
                return
            if str(reason) != told:
                told = str(reason)
                log.warning("cannot consume %s, trying again: %s", self, told)
            await asyncio.sleep(backoff(attempt, RETRY_FIRST, RETRY_LONGEST))
            attempt += 1

    def consuming(self) -> None:
        self.opened.set()
        if not self.attempted.done():
            self.attempted.set_result(None)

    async def consume(self, session: Session) -> ChannelClosed:
        """Returns, with the reason, when it is over. Raises `ChannelClosed`."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Called before it is stopped: takes in what is on its way."""


class RequestQueue(Consumer):
    """A queue of requests that this process alone consumes. A request is acknowledged when it was accepted.

    `again`: what has to return before it is consumed anew; nothing else waits for it.
    """

    def __init__(
        self, queue: str, receive: Callable[[Delivery], None], again: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        super().__init__(queue)
        self._receive = receive
        self._again = again
        self._channel: Channel | None = None
        self._tag = 0
        self._acknowledged = 0
        self._acknowledging: asyncio.TimerHandle | None = None

    async def consume(self, session: Session) -> ChannelClosed:
        if self._again is not None and self.opened.is_set():
            if not self.attempted.done():
                self.attempted.set_result(None)
            await self._again()
        channel = await session.connection.channel()
        queue = self.binding
        try:
            self._tag = self._acknowledged = 0
            await channel.do(
                channel.pika.queue_declare, queue, auto_delete=True, arguments={"x-expires": QUEUE_EXPIRES}
            )
            await channel.do(channel.pika.queue_bind, queue, RPC, queue)
            await channel.do(channel.pika.basic_qos, prefetch_count=PREFETCH)
            self._channel = channel
            await channel.do(channel.pika.basic_consume, queue, self._deliver, exclusive=True)
            self.consuming()
            return await asyncio.shield(channel.closed)
        finally:
            self._channel = None
            channel.close()

    def _deliver(self, _: Any, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._tag = method.delivery_tag
        self._receive(Delivery(properties.correlation_id or "", properties.reply_to or "", body))
        if self._tag - self._acknowledged >= PREFETCH // 4:
            self._acknowledge(self._channel)
        elif self._acknowledging is None:
            self._acknowledging = asyncio.get_running_loop().call_later(ACKNOWLEDGE, self._acknowledge, self._channel)

    def _acknowledge(self, channel: Channel | None) -> None:
        """All that came so far, in one frame."""
        if self._acknowledging is not None:
            self._acknowledging.cancel()
            self._acknowledging = None
        if channel is not None and channel is self._channel and channel.pika.is_open:
            self._acknowledged = self._tag
            channel.pika.basic_ack(self._tag, multiple=True)

    async def drain(self) -> None:
        """New requests are refused by the broker from here on; those in the queue are taken in."""
        channel = self._channel
        if channel is None:
            return
        await channel.do(channel.pika.queue_unbind, self.binding, RPC, self.binding)
        while True:
            held = await channel.do(channel.pika.queue_declare, self.binding, passive=True)
            if held.method.message_count == 0:
                return
            await asyncio.sleep(0.01)


class PassingEvents(Consumer):
    """A queue that lives as long as this connection. What happens while it is away is missed."""

    def __init__(self, binding: str, receive: Callable[[EventDelivery], None]) -> None:
        super().__init__(binding)
        self._receive = receive

    async def consume(self, session: Session) -> ChannelClosed:
        channel = session.events
        declared = await channel.do(channel.pika.queue_declare, "", exclusive=True, auto_delete=True)
        queue = declared.method.queue
        await channel.do(channel.pika.queue_bind, queue, EVENTS, self.binding)
        tag = f"{self.binding}#{queue}"
        await channel.do(
            channel.pika.basic_consume, queue, self._deliver, auto_ack=True, exclusive=True, consumer_tag=tag
        )
        self.consuming()
        try:
            return await asyncio.shield(channel.closed)
        finally:
            if channel.pika.is_open:
                channel.pika.basic_cancel(tag)

    def _deliver(self, _: Any, method: Basic.Deliver, __: BasicProperties, body: bytes) -> None:
        self._receive(EventDelivery(method.routing_key, body, _nothing))


class DurableEvents(Consumer):
    """A durable queue of persistent messages: it survives its process and a crash of the broker.

    Not a quorum queue: one whose broker is killed within a second of its declaration never gets a leader again.
    """

    def __init__(self, binding: str, queue: str, receive: Callable[[EventDelivery], None]) -> None:
        super().__init__(binding)
        self._queue = queue
        self._receive = receive

    async def consume(self, session: Session) -> ChannelClosed:
        channel = await session.connection.channel()
        try:
            await channel.do(channel.pika.queue_declare, self._queue, durable=True)
            await channel.do(channel.pika.queue_bind, self._queue, EVENTS, self.binding)
            await channel.do(channel.pika.basic_qos, prefetch_count=DURABLE_PREFETCH)
            await channel.do(channel.pika.basic_consume, self._queue, self._deliverer(channel))
            self.consuming()
            return await asyncio.shield(channel.closed)
        finally:
            channel.close()

    def _deliverer(self, channel: Channel) -> Callable[[Any, Basic.Deliver, BasicProperties, bytes], None]:
        def deliver(_: Any, method: Basic.Deliver, __: BasicProperties, body: bytes) -> None:
            def settle() -> None:
                if channel.pika.is_open:
                    channel.pika.basic_ack(method.delivery_tag)

            self._receive(EventDelivery(method.routing_key, body, settle))

        return deliver


def _nothing() -> None:
    """Settles an event that its broker does not wait for."""
