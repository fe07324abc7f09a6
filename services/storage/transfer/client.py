"""Who a transfer's bytes are for or from: one client, at its pace, as the `Input` and `Output` of formats.

It comes to a Unix socket. The bytes pass that socket, or a connection that it lends (`shared.contracts.loan`):
then nobody stands between this process and the other end of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from services.storage.formats.interface import Data, Truncated
from services.storage.vhost.memory import Memory
from shared.contracts.loan import LENT_SIZE, Lent, Returned

_BEHIND: Final = 2 << 20
"""Bytes that may wait for the client."""
_TOGETHER: Final = 1 << 19
"""Bytes that have to have come before it is worth waking up for them, if so many are wanted."""
_LENDER_GONE: Final = "who lent the client's connection has broken off"


class NoClient(Exception):
    """Nobody came, or who came has broken off."""


class Client:
    """`received`, `sent`: bytes so far."""

    def __init__(self, connection: socket.socket, memory: Memory) -> None:
        self.received = self.sent = 0
        self._lender = connection
        self._connection = connection
        self._lent: Lent | None = None
        self._early = b""
        self._last: Data = b""
        self._left: int | None = None
        self._ended = False
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._gone = False
        """Whether who lent the connection has ended."""
        self._together = 1

    @classmethod
    async def come(cls, listener: socket.socket, patience: float, memory: Memory, *, lends: bool = False) -> Client:
        """The first who connects; nobody else is taken then. `lends`: it is going to lend a connection.

        Raises `NoClient` after `patience` seconds.
        """
        listener.setblocking(False)
        try:
            async with asyncio.timeout(patience):
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        except TimeoutError:
            raise NoClient(f"nobody came to take part within {patience:.0f} s") from None
        finally:
            listener.close()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BEHIND)
        client = cls(connection, memory)
        if lends:
            try:
                async with asyncio.timeout(patience):
                    await client._borrow()
            except TimeoutError:
                raise NoClient(f"who came has lent nothing within {patience:.0f} s") from None
        return client

    async def _borrow(self) -> None:
        await self._ready(self._lender, self._loop.add_reader, self._loop.remove_reader)
        message, descriptors, _, _ = socket.recv_fds(self._lender, LENT_SIZE, 1)
        if len(message) < LENT_SIZE or not descriptors:
            raise NoClient("who came has broken off before it lent its connection")
        lent = Lent.unpack(message)
        early = memoryview(bytearray(lent.early))
        await self._fill(early)
        self._connection = socket.socket(fileno=descriptors[0])
        self._connection.setblocking(False)
        self._lent, self._early = lent, bytes(early)
        self._left = None if lent.left < 0 else lent.left
        self.received = 0
        self._loop.add_reader(self._lender, self._lender_ended)

    # ---- Output

    async def write(self, data: Data) -> None:
        """Who lent its connection gets the last write itself, in `finish`. Raises `NoClient`."""
        if self._lent is None:
            await self._send(self._connection, data)
        else:
            if self._last:
                await self._send(self._connection, self._last)
            self._last = data
        self.sent += len(data)

    async def finish(self) -> None:
        """All that was written has left this process. Raises `NoClient`."""
        if self._last:
            await self._send(self._lender, self._last)
            self._last = b""

    def close(self) -> None:
        if self._lent is not None:
            if not self._gone:
                self._loop.remove_reader(self._lender)
            self._lender.close()
        self._connection.close()

    async def _send(self, connection: socket.socket, data: Data) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[connection.send(view) :]
            except BlockingIOError:
                await self._ready(connection, self._loop.add_writer, self._loop.remove_writer)
            except OSError as error:
                raise NoClient(f"the client has broken off: {error}") from error
        await asyncio.sleep(0)  # what is read from the disk meanwhile gets on

    # ---- Input

    async def read(self, length: int) -> bytes:
        """Raises `Truncated`, `NoClient`."""
        buffer = memoryview(bytearray(length))
        await self._fill(buffer)
        return bytes(buffer)

    async def read_data(self, length: int) -> Data:
        buffer = self._memory.take(length)
        if buffer is None:
            buffer = memoryview(bytearray(length))
        await self._fill(buffer)
        await asyncio.sleep(0)  # what is written to the disk meanwhile gets on
        return buffer

    async def read_some(self, length: int) -> bytes:
        buffer = memoryview(bytearray(length))
        return bytes(buffer[: await self._receive(buffer, 1)])

    async def _fill(self, buffer: memoryview) -> None:
        while buffer:
            received = await self._receive(buffer, len(buffer))
            if not received:
                raise Truncated(f"{len(buffer)} bytes are missing")
            buffer = buffer[received:]

    async def _receive(self, buffer: memoryview, wanted: int) -> int:
        """At least one byte into the buffer, and how many; 0 at the end. `wanted`: what is waited for, if it waits."""
        if self._early:
            length = min(len(buffer), len(self._early))
            buffer[:length], self._early = self._early[:length], self._early[length:]
        else:
            length = await self._take(buffer if self._left is None else buffer[: self._left], wanted)
        self.received += length
        if self._left is not None:
            self._left -= length
        return length

    async def _take(self, buffer: memoryview, wanted: int) -> int:
        if not buffer or self._ended:
            return 0
        while True:
            try:
                length = self._connection.recv_into(buffer)
            except BlockingIOError:
                self._expect(min(wanted, len(buffer), _TOGETHER))
                await self._ready(self._connection, self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                raise NoClient(f"the client has broken off: {error}") from error
            else:
                self._ended = not length
                return length

    def _expect(self, together: int) -> None:
        """Only a connection of TCP waits for more than one byte."""
        if self._lent is not None and together != self._together:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, together)
            self._together = together

    def give_back(self) -> None:
        """Tells who lent its connection how much of the body was taken from it."""
        if self._lent is None:
            return
        with contextlib.suppress(OSError):  # the client is gone, or who lent it is
            self._expect(1)
            self._lender.send(Returned(self.received, self._ended).pack())

    # ---- waiting

    async def _ready(
        self,
        connection: socket.socket,
        add: Callable[[socket.socket, Callable[[], None]], None],
        remove: Callable[[socket.socket], object],
    ) -> None:
        """Raises `NoClient` when the client is silent for too long, or who lent the connection is gone."""
        if self._gone:
            raise NoClient(_LENDER_GONE)
        self._waiting = waiting = self._loop.create_future()
        stall = self._loop.call_later(self._lent.stall, self._stalled) if self._lent is not None else None
        add(connection, self._go)
        try:
            await waiting
        finally:
            self._waiting = None
            remove(connection)
            if stall is not None:
                stall.cancel()

    def _go(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _fail(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(NoClient(why))

    def _stalled(self) -> None:
        self._fail("the client neither sends nor takes anything any more")

    def _lender_ended(self) -> None:
        """It says nothing any more, but that it ends."""
        self._loop.remove_reader(self._lender)
        self._gone = True
        self._fail(_LENDER_GONE)
