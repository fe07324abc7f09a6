"""A connection to the broker for blocking use: every call ends within a known time.

Its I/O runs on an event loop in a thread of its own. So heartbeats go on while nobody calls, a connection that is lost
or blocked is noticed at once, and whoever calls waits no longer than his patience, whatever the broker does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pika.exceptions
from pika.spec import Basic, BasicProperties

from services.db.redo.quorum.messages import Mark, encoded
from shared.bus.pika_channel import Channel, ChannelClosed, ConnectError, Connection, parameters

HEARTBEAT: Final = 10
"""Seconds. A machine that is gone holds what it was reading for two or three of them."""
GRACE: Final = 2.0
"""Seconds beyond a call's patience for the thread itself, on a busy machine."""
POLITE: Final = 1.0
"""Seconds to say goodbye."""
PREFETCH: Final = 65_535
"""Messages that a reader can hold: more the protocol cannot say, and the broker takes "no limit" for 2,000."""
MARK_EXPIRES: Final = 60_000
"""Milliseconds after which the mark of a reader that died may go."""
ALARM: Final = "the broker takes no messages: its memory or disk alarm is on (`rabbitmqctl list_alarms` says which)"

MARK: Final = encoded(Mark())

Result = TypeVar("Result")


class LinkError(Exception):
    """What was asked for did not happen, or nobody knows. The text says why in the operator's terms.

    `code`: as in AMQP (404 not found, 406 precondition failed, 541 internal), 0 for a connection that was lost, does
    not answer, or never came to be.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Unsent(LinkError):
    """Nothing was sent."""


class Returned(LinkError):
    """The broker had no queue for the message."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A persistent message that has to reach a queue. `id`: of a reader's mark, which needs not last."""

    exchange: str
    key: str
    body: bytes
    id: str = ""


class Link:
    """Not safe for concurrent use. `patience`: seconds for each call, and for the broker's next sign in long ones."""

    def __init__(self, url: str, name: str, patience: float) -> None:
        """Connects. Raises `LinkError`."""
        self.patience = patience
        self.blocked = False
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="redo-log-link", daemon=True)
        self._thread.start()
        self._connection: Connection | None = None
        self._control: Channel | None = None
        self._publisher: _Publisher | None = None
        self._readers: set[Channel] = set()
        try:
            self.call(self._open(url, name))
        except BaseException:
            self.close()
            raise

    async def _open(self, url: str, name: str) -> None:
        self._connection = await Connection.open(parameters(url, name, HEARTBEAT), self._on_blocked)

    def _on_blocked(self, blocked: bool) -> None:
        self.blocked = blocked

    @property
    def lost(self) -> bool:
        return self._connection is None or self._connection.closed.done()

    @property
    def broker(self) -> str:
        """Name and version."""
        return self.connection.broker

    @property
    def version(self) -> tuple[int, ...]:
        """The numbers that the version begins with; () for one that has none."""
        found = re.search(r"\d+(\.\d+)*", self.broker)
        return tuple(int(part) for part in found[0].split(".")) if found else ()

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            raise LinkError("there is no connection to the broker")
        return self._connection

    def close(self) -> None:
        """Ends the connection in order, or not if the broker does not care."""
        self._end(POLITE)

    def drop(self) -> None:
        """Ends the connection without a word: what the broker has not been sent yet is not sent any more."""
        self._end(0.0)

    def _end(self, patience: float) -> None:
        if not self._thread.is_alive():
            return
        ended = asyncio.run_coroutine_threadsafe(self._disconnect(patience), self._loop)
        with contextlib.suppress(TimeoutError):  # the thread ends with the process then
            ended.result(patience + GRACE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GRACE)
        if not self._thread.is_alive():
            self._loop.close()

    async def _disconnect(self, patience: float) -> None:
        if self._connection is not None and not self.lost:
            if patience:
                for reader in list(self._readers):
                    reader.abandon()
                await self._connection.close(patience)
            self._connection.abort()
            await asyncio.wait({self._connection.closed}, timeout=GRACE / 4)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=GRACE / 4)

    # ---- calls

    def call(self, work: Coroutine[Any, Any, Result], *, bounded: bool = True) -> Result:
        """Runs it on the link's loop. `bounded`: false for what watches its own time. Raises `LinkError`."""
        limit = self.patience if bounded else None
        future = asyncio.run_coroutine_threadsafe(self._explained(work, limit), self._loop)
        try:
            return future.result(None if limit is None else limit + GRACE)
        except TimeoutError:
            future.cancel()
            raise LinkError("the thread that talks to the broker does not get its turn") from None

    async def _explained(self, work: Coroutine[Any, Any, Result], limit: float | None) -> Result:
        try:
            async with asyncio.timeout(limit):
                return await work
        except TimeoutError:
            raise LinkError(self._silence()) from None
        except ConnectError as error:
            raise LinkError(str(error)) from error
        except ChannelClosed as error:
            raise LinkError(str(error), error.code) from error
        except pika.exceptions.AMQPError as error:
            raise LinkError(f"the connection to the broker: {error!r}") from error

    def _silence(self) -> str:
        if self.blocked:
            return ALARM
        return (
            f"the broker has not answered for {self.patience:g} s (if it answers others, no member of the queue leads)"
        )

    def do(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """An operation of pika's channel, and the broker's answer. Raises `LinkError`, with the broker's code."""
        return self.call(self._do(operation, arguments, options))

    async def _do(self, operation: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._control is None or self._control.closed.done():  # a refused operation closes its channel
            self._control = await self.connection.channel()
        return await self._control.do(getattr(self._control.pika, operation), *arguments, **options)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns when the broker has confirmed all. Raises `LinkError`: it may have some, now or later; `Unsent`."""
        if self.blocked:
            raise Unsent(ALARM)
        self.call(self.send(messages))

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """On the link's loop."""
        if self._publisher is None or not self._publisher.usable:
            self._publisher = await _Publisher.open(await self.connection.channel())
        await self._publisher.publish(messages)

    def read(self, queue: str, receive: Callable[[int, bytes], None]) -> Reader:
        """`receive` gets the tag and the body of each message, in the link's thread. Raises `LinkError`."""
        return Reader(self, queue, receive)

    async def reader_channel(self) -> Channel:
        """On the link's loop. It is abandoned with the link at the latest."""
        channel = await self.connection.channel()
        self._readers.add(channel)
        channel.closed.add_done_callback(lambda _: self._readers.discard(channel))
        return channel


class _Publisher:
    """A channel whose messages are confirmed. Used by one at a time; not used again after an error."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._tag = 0
        self._open: set[int] = set()
        self._settled: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._why: LinkError | None = None

    @classmethod
    async def open(cls, channel: Channel) -> _Publisher:
        publisher = cls(channel)
        channel.pika.add_on_return_callback(publisher._on_return)
        await channel.do(channel.pika.confirm_delivery, publisher._on_confirm)
        return publisher

    @property
    def usable(self) -> bool:
        return self._why is None and not self._channel.closed.done()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._settled = asyncio.get_running_loop().create_future()
        for message in messages:
            properties = BasicProperties(
                delivery_mode=2,
                message_id=message.id or None,
                expiration=str(MARK_EXPIRES) if message.id else None,
            )
            self._tag += 1
            self._open.add(self._tag)
            self._channel.pika.basic_publish(message.exchange, message.key, message.body, properties, mandatory=True)
        await asyncio.wait({self._settled, self._channel.closed}, return_when=asyncio.FIRST_COMPLETED)
        if not self._settled.done():
            raise self._channel.closed.result()
        if self._why is not None:
            raise self._why

    def _on_return(self, _: Any, method: Basic.Return, __: BasicProperties, ___: bytes) -> None:
        self._why = Returned(f"the broker has no queue for it ({method.reply_text})", method.reply_code)

    def _on_confirm(self, frame: Any) -> None:
        confirm = frame.method
        settled = (
            {tag for tag in self._open if tag <= confirm.delivery_tag} if confirm.multiple else {confirm.delivery_tag}
        )
        self._open -= settled
        if isinstance(confirm, Basic.Nack) and self._why is None:
            self._why = LinkError("the broker could not keep it (nack)")
        if not self._open and not self._settled.done():
            self._settled.set_result(None)


class Reader:
    """Reads all that a queue holds and keeps it from others until it is closed; then it is there again.

    The queue has a single active consumer: while another reads, nothing comes. A mark of the reader's own that comes
    back says that it is the active one; a second one, sent after that, comes after all that was there.
    """

    def __init__(self, link: Link, queue: str, receive: Callable[[int, bytes], None]) -> None:
        self._link = link
        self._queue = queue
        self._receive = receive
        self._active = False
        self._awaited = ""
        self._came = asyncio.Event()
        self._heard = 0.0
        self._failure: Exception | None = None
        self._channel: Channel = link.call(self._open())

    async def _open(self) -> Channel:
        channel = await self._link.reader_channel()
        await channel.do(channel.pika.basic_qos, prefetch_count=PREFETCH)
        await channel.do(channel.pika.basic_consume, self._queue, self._deliver)
        return channel

    def _deliver(self, _: Any, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._heard = time.monotonic()
        if properties.message_id and properties.message_id == self._awaited:
            self._channel.pika.basic_ack(method.delivery_tag)
            self._came.set()
            return
        try:
            self._receive(method.delivery_tag, body)
        except Exception as error:  # told to whoever reads: pika's callbacks have nobody to tell
            self._failure = self._failure or error
            self._came.set()

    def to_end(self) -> None:
        """Until all that was in the queue when it was called has been received.

        Raises `LinkError`, also when another reader holds the queue, and what `receive` has raised.
        """
        while not self._active:
            self._link.call(self._to_mark(), bounded=False)
            self._active = True
        self._link.call(self._to_mark(), bounded=False)

    async def _to_mark(self) -> None:
        self._awaited, self._heard = uuid.uuid4().hex, time.monotonic()
        self._came.clear()
        async with asyncio.timeout(self._link.patience):
            await self._link.send([Outgoing("", self._queue, MARK, self._awaited)])
        waiting: asyncio.Future[Any] = asyncio.ensure_future(self._came.wait())
        try:
            while not waiting.done():
                left = self._heard + self._link.patience - time.monotonic()
                if left <= 0:
                    raise LinkError(self._silence())
                await asyncio.wait({waiting, self._channel.closed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if self._channel.closed.done():
                    raise self._channel.closed.result()
        finally:
            waiting.cancel()
        if self._failure is not None:
            raise self._failure

    def _silence(self) -> str:
        if self._active:
            return f"the broker has sent nothing for {self._link.patience:g} s"
        return (
            f"nothing could be read for {self._link.patience:g} s: another process reads it (one that has died lets go"
            f" after {3 * HEARTBEAT} s), it has more than {PREFETCH:,} messages, or no member of its queue leads"
        )

    def acknowledge(self, tags: Iterable[int]) -> None:
        """These are never delivered again. Raises `LinkError`: some may be."""
        self._link.call(self._acknowledge(sorted(tags)))

    async def _acknowledge(self, tags: list[int]) -> None:
        for tag in tags:
            self._channel.pika.basic_ack(tag)
        await self._channel.do(self._channel.pika.queue_declare, self._queue, passive=True)  # answered after them

    def close(self) -> None:
        """Raises `LinkError`; then the broker gives the messages free when the connection ends."""
        self._link.call(self._close())

    async def _close(self) -> None:
        self._channel.abandon()
        await asyncio.wait({self._channel.closed})
