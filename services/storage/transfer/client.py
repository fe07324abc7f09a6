"""The socket that a transfer's bytes pass: one client, at its pace, as the `Input` and `Output` of formats."""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

from services.storage.formats.interface import Truncated

_AHEAD: Final = 1 << 18
"""Bytes that are taken from the client before anybody asks for them."""
_BEHIND: Final = 2 << 20
"""Bytes that may wait for the client."""


class NoClient(Exception):
    """Nobody came, or who came has broken off."""


class Client(asyncio.BufferedProtocol):
    """`received`, `sent`: bytes so far."""

    def __init__(self) -> None:
        self.received = self.sent = 0
        self._transport: asyncio.Transport | None = None
        self._ahead = bytearray(_AHEAD)
        self._begin = self._end = 0
        """What of `_ahead` holds bytes that nobody has asked for yet."""
        self._into: memoryview | None = None
        self._ready: asyncio.Future[None] | None = None
        self._ended = False
        self._lost: NoClient | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def come(cls, listener: socket.socket, patience: float) -> Client:
        """The first who connects; nobody else is taken then. Raises `NoClient` after `patience` seconds."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        try:
            async with asyncio.timeout(patience):
                connection, _ = await loop.sock_accept(listener)
        except TimeoutError:
            raise NoClient(f"nobody came to take part within {patience:.0f} s") from None
        finally:
            listener.close()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BEHIND)
        _, client = await loop.connect_accepted_socket(cls, connection)
        return client

    # ---- Output

    async def write(self, data: bytes) -> None:
        """Raises `NoClient`."""
        if self._lost is not None:
            raise self._lost
        assert self._transport is not None
        self._transport.write(data)
        self.sent += len(data)
        await self._writable.wait()

    async def finish(self) -> None:
        """All that was written has left this process. Raises `NoClient`."""
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=0)
        if self._transport.get_write_buffer_size():
            self._writable.clear()
            await self._writable.wait()
        if self._lost is not None:
            raise self._lost

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # ---- Input

    async def read(self, length: int) -> bytes:
        """Raises `Truncated`."""
        if length <= self._end - self._begin:
            return self._take(length)
        buffer = bytearray(length)
        view = memoryview(buffer)
        filled = self._end - self._begin
        view[:filled] = self._take(filled)
        await self._fill(view[filled:])
        return bytes(buffer)

    async def read_some(self, length: int) -> bytes:
        if self._begin == self._end and not self._ended:
            await self._wait()
        return self._take(min(length, self._end - self._begin))

    def _take(self, length: int) -> bytes:
        data = bytes(memoryview(self._ahead)[self._begin : self._begin + length])
        self._begin += length
        if self._begin == self._end:
            self._begin = self._end = 0
        return data

    async def _fill(self, view: memoryview) -> None:
        self._into = view
        if not self._ended:
            await self._wait()
        left, self._into = (len(self._into) if self._into is not None else 0), None
        if left:
            raise Truncated(f"{left} bytes are missing")

    async def _wait(self) -> None:
        assert self._transport is not None
        self._ready = asyncio.get_running_loop().create_future()
        self._transport.resume_reading()
        await self._ready

    # ---- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by their class
        self._transport.set_write_buffer_limits(high=_BEHIND)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._into if self._into is not None else memoryview(self._ahead)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        assert self._transport is not None
        self.received += nbytes
        if self._into is not None:
            self._into = self._into[nbytes:]
            if not self._into:
                self._into = None
                self._go()
            return
        self._end += nbytes
        if self._end == len(self._ahead):
            self._transport.pause_reading()
        self._go()

    def eof_received(self) -> bool:
        self._ended = True
        self._go()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._lost = NoClient(f"the client has broken off: {error or 'connection closed'}")
        self._go()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _go(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
