"""pika's I/O on the event loop's own transports, instead of its file descriptor callbacks.

pika writes each frame of a message by a `send` of its own, after a turn of the loop to learn that the socket is
writable. Here everything that is written in one turn of the loop leaves in one piece, and what has come is looked
through before pika sees it (`pika_frames.py`). Works with uvloop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pika.adapters.utils.nbio_interface import (
    AbstractIOReference,
    AbstractIOServices,
    AbstractStreamProtocol,
    AbstractStreamTransport,
    AbstractTimerReference,
)

from shared.bus.pika_frames import Incoming

HIGH_WATER = 4 * 1024 * 1024
"""Bytes not yet taken by the socket above which publishers pause."""


class _Timer(AbstractTimerReference):  # type: ignore[misc]
    def __init__(self, handle: asyncio.TimerHandle) -> None:
        self._handle = handle

    def cancel(self) -> None:
        self._handle.cancel()


class _Operation(AbstractIOReference):  # type: ignore[misc]
    """Owns the task; `on_done` gets its result or error unless it was cancelled."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], on_done: Callable[[Any], None]
    ) -> None:
        self._on_done = on_done
        self._task = loop.create_task(work)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            self._on_done(task.exception() or task.result())

    def cancel(self) -> bool:
        return self._task.cancel()


class _Stream(asyncio.Protocol, AbstractStreamTransport):  # type: ignore[misc]
    """The loop's protocol on one side, pika's transport on the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: AbstractStreamProtocol) -> None:
        self._loop = loop
        self._protocol = protocol
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._in = Incoming()
        self.heard = loop.time()
        """When something was last received, by the loop's clock."""
        self._writable = asyncio.Event()
        self._writable.set()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self._transport is None:
            return
        try:
            self._in.take(data, self._protocol.conn)
        except Exception as error:
            self.fail(error)

    def eof_received(self) -> bool:
        return bool(self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._in.over = True
        self._out.clear()
        self._writable.set()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # AbstractStreamTransport

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def get_protocol(self) -> AbstractStreamProtocol:
        return self._protocol

    def write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def get_write_buffer_size(self) -> int:
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return waiting + sum(map(len, self._out))

    # for the bus

    @property
    def congested(self) -> bool:
        return not self._writable.is_set()

    async def uncongested(self) -> None:
        await self._writable.wait()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def fail(self, error: Exception) -> None:
        """The connection ends here and now, with that error, without a word to the other side."""
        transport, self._transport = self._transport, None
        self._in.over = True
        if transport is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)
            self._protocol = _Gone()
            transport.abort()


class _Gone(AbstractStreamProtocol):  # type: ignore[misc]
    """Stands in for a protocol that was told of its end already."""

    def connection_made(self, transport: AbstractStreamTransport) -> None: ...

    def connection_lost(self, error: BaseException | None) -> None: ...

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None: ...


class LoopServices(AbstractIOServices):  # type: ignore[misc]
    """For `pika.adapters.asyncio_connection.AsyncioConnection(custom_ioloop=...)`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.stream: _Stream | None = None

    def get_native_ioloop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def close(self) -> None:
        raise NotImplementedError("the loop belongs to the process")

    def run(self) -> None:
        raise NotImplementedError("the loop belongs to the process")

    def stop(self) -> None:
        raise NotImplementedError("the loop belongs to the process")

    def add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> AbstractTimerReference:
        return _Timer(self._loop.call_later(delay, callback))

    def getaddrinfo(
        self,
        host: str,
        port: int,
        on_done: Callable[..., None],
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> AbstractIOReference:
        look_up = self._loop.getaddrinfo(host, port, family=family, type=socktype, proto=proto, flags=flags)
        return _Operation(self._loop, look_up, on_done)

    def connect_socket(
        self,
        sock: socket.socket,
        resolved_addr: tuple[str, int],
        on_done: Callable[[BaseException | None], None],
    ) -> AbstractIOReference:
        return _Operation(self._loop, self._loop.sock_connect(sock, resolved_addr), on_done)

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], AbstractStreamProtocol],
        sock: socket.socket,
        on_done: Callable[..., None],
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> AbstractIOReference:
        async def connect() -> tuple[AbstractStreamTransport, AbstractStreamProtocol]:
            protocol = protocol_factory()
            self.stream = stream = _Stream(self._loop, protocol)
            try:
                await self._loop.create_connection(
                    lambda: stream, sock=sock, ssl=ssl_context, server_hostname=server_hostname or None
                )
            except BaseException:
                sock.close()
                raise
            return stream, protocol

        return _Operation(self._loop, connect(), on_done)
