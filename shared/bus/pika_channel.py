"""pika's connection and channels, awaitable."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import pika
import pika.exceptions
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel as PikaChannel
from pika.spec import BasicProperties

from shared.bus import pika_frames
from shared.bus.pika_io import LoopServices


class ConnectError(Exception):
    """No connection; the text says why in the operator's terms."""


class ChannelClosed(Exception):
    """`code`: as in AMQP (403 refused, 404 not found, 406 precondition failed); 0 when the connection was lost."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Channel:
    """One AMQP channel. `closed` is done, with the reason, as soon as it cannot be used any more."""

    def __init__(self, channel: PikaChannel) -> None:
        self.pika = channel
        self.closed: asyncio.Future[ChannelClosed] = asyncio.get_running_loop().create_future()
        channel.add_on_close_callback(self._on_close)
        channel.add_on_cancel_callback(self._on_cancel)

    def _on_close(self, _: PikaChannel, reason: BaseException) -> None:
        if not self.closed.done():
            if isinstance(reason, pika.exceptions.ChannelClosed):
                self.closed.set_result(ChannelClosed(reason.reply_code, reason.reply_text))
            else:
                self.closed.set_result(ChannelClosed(0, f"connection lost: {reason}"))

    def _on_cancel(self, _: Any) -> None:
        """The broker ended our consumer, for instance because its queue was deleted."""
        if not self.closed.done():
            self.closed.set_result(ChannelClosed(404, "the broker ended the consumer"))
            self.close()

    async def do(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Runs an operation of pika's channel and returns the broker's answer. Raises `ChannelClosed`."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def callback(frame: Any) -> None:
            if not answered.done():
                answered.set_result(frame)

        try:
            operation(*arguments, **options, callback=callback)
        except pika.exceptions.AMQPError as error:
            raise ChannelClosed(0, f"channel is closed: {error}") from error
        await asyncio.wait({answered, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            raise self.closed.result()
        return answered.result()

    def publish(self, exchange: str, key: str, body: bytes, properties: bytes, mandatory: bool = False) -> None:
        """`properties`: as `pika_frames` makes them. Raises `AMQPError`, as pika does."""
        connection = self.pika.connection
        if not self.pika.is_open:
            raise pika.exceptions.ChannelWrongStateError("the channel is not open")
        if len(body) > connection._body_max_length:
            known = BasicProperties().decode(properties)
            self.pika.basic_publish(exchange, key, body, known, mandatory)
            return
        frames = pika_frames.published(self.pika.channel_number, exchange, key, properties, body, mandatory)
        connection._output_marshaled_frames((frames,))

    def close(self) -> None:
        if self.pika.is_open:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self.pika.close()

    def abandon(self) -> None:
        """Closes it without cancelling its consumers first, as `close` does: they end and give back what they hold in
        one step. A cancelled consumer of a quorum queue holds its messages until the channel has gone, and where the
        queue has a single active consumer, the next one is active meanwhile, and does not get them.
        """
        # pika has no public way: it cancels all consumers that it does not take for cancelled
        self.pika._cancelled.update(self.pika.consumer_tags)
        self.close()


class Connection:
    """One AMQP connection. `closed` is done, with the reason in words, when it is lost."""

    def __init__(self, connection: AsyncioConnection, services: LoopServices, closed: asyncio.Future[str]) -> None:
        self._connection = connection
        self.services = services
        self.closed = closed

    @classmethod
    async def open(cls, parameters: pika.URLParameters, on_blocked: Callable[[bool], None]) -> Connection:
        """Raises `ConnectError`."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        closed: asyncio.Future[str] = loop.create_future()

        def on_open(_: Any) -> None:
            if not opened.done():
                opened.set_result(None)

        def on_error(_: Any, error: BaseException) -> None:
            if not opened.done():
                opened.set_exception(ConnectError(explain(error)))

        def on_close(_: Any, reason: BaseException) -> None:
            if not closed.done():
                closed.set_result(explain(reason))

        services = LoopServices()
        connection = AsyncioConnection(
            parameters,
            on_open_callback=on_open,
            on_open_error_callback=on_error,
            on_close_callback=on_close,
            custom_ioloop=services,
        )
        connection.add_on_connection_blocked_callback(lambda *_: on_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: on_blocked(False))
        try:
            await opened
        except asyncio.CancelledError:
            if not connection.is_closed and not connection.is_closing:
                connection.close()
            raise
        return cls(connection, services, closed)

    async def channel(self) -> Channel:
        """Raises `ChannelClosed`."""
        opened: asyncio.Future[PikaChannel] = asyncio.get_running_loop().create_future()
        try:
            channel = Channel(self._connection.channel(on_open_callback=opened.set_result))
        except pika.exceptions.AMQPError as error:
            raise ChannelClosed(0, f"no channel: {error}") from error
        await asyncio.wait({opened, channel.closed}, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            raise channel.closed.result()
        return channel

    @property
    def broker(self) -> str:
        """Name and version of the broker's program, as it says them."""
        said = self._connection.server_properties
        return f"{said.get('product', 'broker')} {said.get('version', '')}".strip()

    def silence(self) -> float:
        """Seconds since the broker sent anything."""
        stream = self.services.stream
        return 0.0 if stream is None else asyncio.get_running_loop().time() - stream.heard

    def abort(self) -> None:
        """Drops the connection without a word to the broker."""
        if self.services.stream is not None:
            self.services.stream.fail(ConnectionAbortedError("the connection was given up"))

    async def close(self, timeout: float = 2.0) -> None:
        if self._connection.is_open:
            self._connection.close()
            await asyncio.wait({self.closed}, timeout=timeout)
        if not self.closed.done():
            self.abort()


def parameters(url: str, name: str, heartbeat: int) -> pika.URLParameters:
    """`name`: of the connection, for people who look at the broker. `heartbeat`: seconds; the broker drops a
    connection that is silent for two of them. Raises `ValueError` for a URL that is none.
    """
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # what it reports, its users report once and in words
    scheme = url.partition(":")[0]
    if scheme not in ("amqp", "amqps"):
        raise ValueError(f"the broker's URL must begin with amqp:// or amqps://, not {scheme}://")
    found = pika.URLParameters(url)
    found.heartbeat = heartbeat
    found.connection_attempts = 1
    found.socket_timeout = 5
    found.stack_timeout = 10
    found.blocked_connection_timeout = None
    found.client_properties = {"connection_name": name, "product": "xapi bus"}
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        found.tcp_options = {"TCP_USER_TIMEOUT": heartbeat * 2000}
    return found


def explain(error: BaseException) -> str:
    """pika wraps the reason in several layers; the innermost is what an operator can act on."""
    match error:
        case pika.exceptions.ProbableAuthenticationError() | pika.exceptions.AuthenticationError():
            return "the broker refused the user or password"
        case pika.exceptions.ProbableAccessDeniedError():
            return "the broker refused access to the vhost"
        case pika.exceptions.ConnectionClosed():
            return f"{error.reply_text} ({error.reply_code})"
        case OSError() if error.errno:
            return os.strerror(error.errno)
    causes = getattr(error, "exceptions", None) or [cause for cause in error.args if isinstance(cause, BaseException)]
    if causes:
        return explain(causes[-1])
    inner = getattr(error, "exception", None)
    if isinstance(inner, BaseException):
        return explain(inner)
    return str(error) or type(error).__name__
