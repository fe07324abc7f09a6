"""The bus over RabbitMQ (AMQP 0-9-1), by pika on the running event loop. `docs/bus.md` says what it promises.

What lies where on one connection: one channel for requests with their direct reply-to and their returns, one for
replies and events, one for non-durable subscriptions, and one for each served queue and durable subscription, because
a refused operation closes its channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pika
import pika.exceptions
from pika.spec import Basic, BasicProperties

from shared.bus.amqp_consumers import DEAD, EVENTS, RPC, Consumer, DurableEvents, PassingEvents, RequestQueue
from shared.bus.endpoint import Endpoint
from shared.bus.pika_channel import Channel, ChannelClosed, ConnectError, Connection, parameters
from shared.bus.pika_frames import reply_properties, request_properties
from shared.bus.timing import DEFAULT, Timing, backoff
from shared.bus.transport import Delivery, EventDelivery, Owner

log = logging.getLogger("bus")

REPLY_TO = "amq.rabbitmq.reply-to"
DEAD_LENGTH = 10_000
"""Messages kept for people to look at; the oldest go first."""
RETRY_FIRST, RETRY_LONGEST = 0.05, 3.0
"""Seconds between attempts to connect."""
CLOSE_PATIENCE = 2.0
"""Seconds to take in what a queue still holds when it is closed."""


async def connect(url: str, name: str = "", timing: Timing = DEFAULT) -> Endpoint:
    """A `Bus` on the broker at `url` (amqp[s]://user:password@host:port/vhost), as soon as it answers.

    Waits for a broker that is not there yet, with a log line when the reason changes. `name`: of the connection.
    Raises `ValueError` for a URL that is none.
    """
    transport = AmqpTransport(url, name, timing)
    endpoint = Endpoint(transport, timing)
    try:
        await transport.open()
    except BaseException:
        await transport.close()
        raise
    return endpoint


class AmqpTransport:
    """Implements `shared.bus.transport.Transport`. One task owns the connection and makes it again when it is lost."""

    owner: Owner

    def __init__(self, url: str, name: str, timing: Timing) -> None:
        self._parameters = parameters(url, name, timing.heartbeat)
        self.heartbeat = timing.heartbeat
        self.reconnects = 0
        self._up = False
        self._blocked = False
        self._session: _Session | None = None
        """From the moment its channels are there; `_up` when its consumers are too."""
        self._consumers: list[Consumer] = []
        self._queues: dict[str, RequestQueue] = {}
        self._task: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name="bus connection")
        await asyncio.wait({self._task, self._opened}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    # ---- state

    @property
    def ready(self) -> bool:
        return self._up and not self._blocked

    @property
    def congested(self) -> bool:
        stream = self._session.connection.services.stream if self._session is not None else None
        return stream is not None and stream.congested

    async def uncongested(self) -> None:
        if self._session is not None and self._session.connection.services.stream is not None:
            await self._session.connection.services.stream.uncongested()

    # ---- sending. What the connection cannot take is lost; the core sends again what matters

    def request(self, queue: str, id: str, kind: str, body: bytes, expires: float) -> None:
        if self._session is not None:
            with contextlib.suppress(pika.exceptions.AMQPError):  # the channel is closing: `lost` follows
                properties = request_properties(id, REPLY_TO, str(max(1, int(expires * 1000))), kind)
                self._session.requests.publish(RPC, queue, body, properties, mandatory=True)

    def reply(self, to: str, id: str, body: bytes) -> None:
        if self._session is not None:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self._session.publisher.publish("", to, body, reply_properties(id))

    def event(self, key: str, also: tuple[str, ...], body: bytes) -> None:
        if self._session is not None:
            properties = BasicProperties(
                content_type="application/json", delivery_mode=2, headers={"CC": list(also)} if also else None
            )
            self._publish(self._session.publisher, EVENTS, key, body, properties)

    def bury(self, body: bytes, reason: str, source: str) -> None:
        if self._session is None:
            log.error("no connection: a message of %s for the dead queue is lost", source)
            return
        properties = BasicProperties(delivery_mode=2, headers={"reason": reason[:2000], "source": source})
        self._publish(self._session.publisher, DEAD, source, body, properties)

    def _publish(
        self,
        channel: Channel,
        exchange: str,
        key: str,
        body: bytes,
        properties: BasicProperties,
    ) -> None:
        with contextlib.suppress(pika.exceptions.AMQPError):
            channel.pika.basic_publish(exchange, key, body, properties)

    # ---- queues and subscriptions

    async def open_queue(
        self,
        queue: str,
        receive: Callable[[Delivery], None],
        again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        if queue not in self._queues:
            consumer = self._queues[queue] = RequestQueue(queue, receive, again)
            self._add(consumer)
        await self._queues[queue].opened.wait()

    async def delete_queue(self, queue: str) -> None:
        session = self._session
        if session is None:
            raise ConnectionError("there is no connection to the broker")
        try:
            channel = await session.connection.channel()
            try:
                await channel.do(channel.pika.queue_delete, queue)
            finally:
                channel.close()
        except ChannelClosed as error:
            raise ConnectionError(str(error)) from error

    async def close_queue(self, queue: str) -> None:
        consumer = self._queues.pop(queue, None)
        if consumer is not None:
            await self._remove(consumer)

    async def subscribe(self, binding: str, durable: str, receive: Callable[[EventDelivery], None]) -> _Subscribed:
        consumer: Consumer = DurableEvents(binding, durable, receive) if durable else PassingEvents(binding, receive)
        self._add(consumer)
        try:
            await consumer.opened.wait()
        except BaseException:
            await self._remove(consumer)
            raise
        return _Subscribed(self._remove, consumer)

    def _add(self, consumer: Consumer) -> None:
        self._consumers.append(consumer)
        if self._session is not None:
            self._session.start(consumer)

    async def _remove(self, consumer: Consumer) -> None:
        if consumer in self._consumers:
            self._consumers.remove(consumer)
            if self._session is not None:
                await self._session.stop(consumer)

    # ---- the connection

    async def _run(self) -> None:
        attempt, told = 0, ""
        while True:
            try:
                session = await _Session.open(self._parameters, self)
            except (ConnectError, ChannelClosed, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    where = f"{self._parameters.host}:{self._parameters.port}"
                    log.warning("no connection to the broker at %s: %s; trying again", where, told)
            except Exception:
                log.exception("connecting to the broker failed in an unexpected way; trying again")
            else:
                attempt, told = 0, ""
                await self._hold(session)
            await asyncio.sleep(backoff(attempt, RETRY_FIRST, RETRY_LONGEST))
            attempt += 1

    async def _hold(self, session: _Session) -> None:
        """Until the connection is lost. Whatever goes wrong, the next one is made: nobody else would."""
        try:
            reason = await self._use(session)
            log.warning("the connection to the broker is lost: %s", reason)
            session.connection.abort()
        except Exception:
            log.exception("the connection to the broker is given up")
        finally:
            self._up, self._session = False, None
            self.owner.lost()
            await session.close()

    async def _use(self, session: _Session) -> str:
        """Returns, with the reason, when the session has ended."""
        self._session = session
        await session.start_all(self._consumers)
        if not session.ended.done():
            self._up = True
            again = self._opened.done()
            self.reconnects += again
            if again:
                log.info("the connection to the broker is back")
            else:
                self._opened.set_result(None)
            if not self._blocked:
                self.owner.ready(again)
        return await session.ended

    def block(self, blocked: bool) -> None:
        """The broker is short of memory or disk and takes no messages for now."""
        if blocked is self._blocked:
            return
        self._blocked = blocked
        log.warning("the broker %s messages", "is short of resources and takes no" if blocked else "takes again")
        if not blocked and self._up:
            self.owner.ready(again=False)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class _Subscribed:
    def __init__(self, remove: Callable[[Consumer], Coroutine[Any, Any, None]], consumer: Consumer) -> None:
        self._remove = remove
        self._consumer = consumer

    async def cancel(self) -> None:
        await self._remove(self._consumer)


class _Session:
    """One connection from its start to its loss, with its channels and the tasks that consume."""

    def __init__(self, connection: Connection, transport: AmqpTransport) -> None:
        self.connection = connection
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.requests: Channel
        self.publisher: Channel
        self.events: Channel
        self._transport = transport
        self._tasks: dict[Consumer, asyncio.Task[None]] = {}
        self._watchdog: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, parameters: pika.URLParameters, transport: AmqpTransport) -> _Session:
        """Raises `ConnectError`, `ChannelClosed`."""
        transport.block(False)
        session = cls(await Connection.open(parameters, transport.block), transport)
        try:
            await session._set_up()
        except BaseException:
            await session.close()
            raise
        return session

    async def _set_up(self) -> None:
        self.connection.closed.add_done_callback(lambda closed: self._end(closed.result()))
        self._watchdog = asyncio.create_task(self._watch(), name="bus watchdog")
        self.requests = await self._channel()
        self.publisher = await self._channel()
        self.events = await self._channel()
        declare = self.publisher.pika.exchange_declare
        for exchange, kind in ((RPC, "direct"), (EVENTS, "topic"), (DEAD, "fanout")):
            await self.publisher.do(declare, exchange, kind, durable=True)
        arguments = {"x-max-length": DEAD_LENGTH}
        await self.publisher.do(self.publisher.pika.queue_declare, DEAD, durable=True, arguments=arguments)
        await self.publisher.do(self.publisher.pika.queue_bind, DEAD, DEAD, "")
        self.requests.pika.add_on_return_callback(self._returned)
        await self.requests.do(self.requests.pika.basic_consume, REPLY_TO, self._answered, auto_ack=True)

    async def _channel(self) -> Channel:
        """One whose end is the session's end."""
        channel = await self.connection.channel()
        channel.closed.add_done_callback(lambda closed: self._end(f"channel closed: {closed.result()}"))
        return channel

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    def _returned(self, _: Any, __: Basic.Return, properties: BasicProperties, ___: bytes) -> None:
        self._transport.owner.returned(properties.correlation_id or "", properties.type or "")

    def _answered(self, _: Any, __: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._transport.owner.answered(properties.correlation_id or "", body)

    # ---- consumers

    async def start_all(self, consumers: list[Consumer]) -> None:
        """Returns when each of them consumes, or has found that it must wait."""
        attempts = [self.start(consumer) for consumer in consumers]
        attempts = [attempt for attempt in attempts if not attempt.done()]
        if attempts:
            everything: asyncio.Future[Any] = asyncio.gather(*attempts)
            ended: asyncio.Future[Any] = self.ended
            await asyncio.wait({everything, ended}, return_when=asyncio.FIRST_COMPLETED)

    def start(self, consumer: Consumer) -> asyncio.Future[None]:
        """The future of its first attempt's end."""
        if consumer not in self._tasks:
            consumer.attempted = asyncio.get_running_loop().create_future()
            self._tasks[consumer] = asyncio.create_task(consumer.run(self), name=f"bus {consumer}")
        return consumer.attempted

    async def stop(self, consumer: Consumer) -> None:
        task = self._tasks.pop(consumer, None)
        if task is not None:
            with contextlib.suppress(ChannelClosed, TimeoutError):
                async with asyncio.timeout(CLOSE_PATIENCE):
                    await consumer.drain()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        """Ends the session when the broker has been silent for an interval; it sends a heartbeat at half of it.

        pika looks only every interval and five seconds more, and counts what came at the beginning.
        """
        allowed = self._transport.heartbeat
        while True:
            await asyncio.sleep(allowed / 4)
            if self.connection.silence() > allowed:
                await asyncio.sleep(1.0)  # this very process may have been held up, with the heartbeat waiting unread
                if self.connection.silence() > allowed:
                    self._end(f"no sign of life from the broker for {self.connection.silence():.0f} s")
                    return

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *([self._watchdog] if self._watchdog is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.connection.close()
        self._end("closed")
