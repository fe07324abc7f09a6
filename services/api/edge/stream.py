"""Request bodies and replies of any length: what a handler reads and writes, both at the pace of the client.

Nothing is kept but what one read or one write holds: asyncio's streams stop reading from a client whose data nobody
takes, and make a writer wait for a client that does not read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from services.api.edge import pages
from services.api.edge.chunks import Chunks
from shared.errors import ApiError, internal_error

if TYPE_CHECKING:
    from services.api.edge.exchange import Exchange

CHUNK: Final = 64 * 1024
"""Bytes of the largest piece that one read gives, unless its caller wants larger ones."""

Headers = Sequence[tuple[str, str]]


class ClientGone(ConnectionError):
    """The client has closed, or takes nothing any more: there is nobody left to serve."""


class Loan(NamedTuple):
    """A connection that is lent. `early`: bytes of the body that were read already. `left`: bytes of the body with
    those; None: it ends with the connection. `stall`: as of the stream.
    """

    descriptor: int
    early: bytes
    left: int | None
    stall: float


class Stream:
    """One request's body and the reply to it. The connection is HTTP's own until either is used, and closes after.

    `length`: of the body; None: it ends when the client closes its half. `stall`: seconds without a byte, in either
    direction, after which the client counts as gone. `started`: the head of a reply is written.
    """

    def __init__(self, exchange: Exchange, stall: float, linger: float) -> None:
        self._exchange = exchange
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._stall = stall
        self._linger = linger
        self._told = self._held = False
        head = exchange.head
        self._leave_due = head.waits_for_leave
        self._chunks: Chunks | None = None
        self._left = None if head.chunked else 0 if head.bodiless else head.length
        self._ended = False
        self.length = None if head.chunked else head.length
        self.chunked = head.chunked
        self.started = False

    @property
    def taken(self) -> bool:
        """Whether the connection has left HTTP."""
        return self._streams is not None

    def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = self._exchange.take_over()
        return self._streams

    # ---- the body

    async def read(self, most: int = CHUNK) -> bytes:
        """The next bytes, at most so many; b"" at the end of the body.

        Raises INTERNAL_ERROR when the client stops before the length it announced, `ClientGone` when it is silent.
        """
        if self._left == 0 or self._ended:
            return b""
        reader, _ = self._take()
        await self._give_leave()
        try:
            async with asyncio.timeout(self._stall):
                data = await self._some(reader, most if self._left is None else min(most, self._left))
        except TimeoutError:
            raise ClientGone("the client sends nothing any more") from None
        if self._left is not None:
            self._left -= len(data)
            if not data:
                raise cut_short(self.length, self._left)
        self._ended = not data
        return data

    async def _some(self, reader: asyncio.StreamReader, most: int) -> bytes:
        if not self.chunked:
            return await reader.read(most)
        if self._chunks is None:
            self._chunks = Chunks(reader)
        return await self._chunks.read(most)

    async def _give_leave(self) -> None:
        """Tells a client that waits for it, once, that its body is wanted."""
        if self._leave_due:
            self._leave_due = False
            await self.write(pages.GO_ON)

    async def read_all(self, most: int) -> bytes:
        """The whole body, where it is small. Raises INTERNAL_ERROR when it is larger than `most` bytes."""
        if self.length is not None and self.length > most:
            raise internal_error(f"the body is larger than {most} bytes")
        parts = bytearray()
        while data := await self.read():
            parts += data
            if len(parts) > most:
                raise internal_error(f"the body is larger than {most} bytes")
        return bytes(parts)

    # ---- lending the connection

    def hold(self) -> bool:
        """From here on nothing is read of the body, so that `lend` can follow; False where that cannot be: in TLS, and
        for bodies in HTTP's chunks.
        """
        if self.chunked or self.taken or not self._exchange.plain:
            return False
        self._streams = self._exchange.take_over(unread=True)
        self._held = True
        return True

    async def lend(self) -> Loan:
        """The connection, for somebody else to read and write: not to be used here until `returned`. Raises
        `ClientGone`.
        """
        _, writer = self._take()
        if writer.transport.is_closing():
            raise ClientGone("the client has closed the connection")
        writer.transport.set_write_buffer_limits(high=0)  # the head of the reply is to leave this process
        await self._drain(writer)
        writer.transport.set_write_buffer_limits()
        connection = writer.transport.get_extra_info("socket")
        if connection is None or writer.transport.is_closing():
            raise ClientGone("the client has closed the connection")
        early = self._exchange.early
        if self._left is not None:
            early = early[: self._left]
        return Loan(connection.fileno(), early, self._left, self._stall)

    def returned(self, received: int, ended: bool) -> ApiError | None:
        """`received`: bytes of the body that were taken of the connection. `ended`: the client has closed; what is
        returned says that it did so too early.
        """
        self._ended = ended
        if self._left is not None:
            self._left -= received
            if ended and self._left:
                return cut_short(self.length, self._left)
        return None

    # ---- the reply

    async def start(
        self, headers: Headers = (), *, status: int = 200, http10: bool = False, told: bool = False
    ) -> None:
        """Sends the head of the reply. Without a `content-length` the reply ends with the connection. `told`: the head
        is all there is, and the client learns elsewhere how the request has ended.
        """
        if self.started:
            raise RuntimeError("the reply has begun already")
        self.started, self._told = True, told
        if status == 200:
            await self._give_leave()
        self._leave_due = False
        await self.write(pages.head(status, headers, http10=http10))

    async def write(self, data: bytes) -> None:
        """Sends a part of the reply; returns when the client is not too far behind. Raises `ClientGone`."""
        _, writer = self._take()
        if writer.transport.is_closing():
            raise ClientGone("the client has closed the connection")
        writer.write(data)
        await self._drain(writer)

    async def _drain(self, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await writer.drain()
        except TimeoutError:
            raise ClientGone("the client takes nothing any more") from None
        except ConnectionError as error:
            raise ClientGone(str(error)) from None

    # ---- the end

    async def end(self, failure: bytes = b"") -> None:
        """Closes the connection. `failure`: a whole error reply, sent if nothing else was.

        A client that is still sending gets a while to read what we said: closing at once would reset the connection.
        """
        if self._streams is None:
            return
        reader, writer = self._streams
        try:
            if failure and not self.started:
                self.started = True
                await self.write(failure)
            if not self._all_read and writer.can_write_eof():
                writer.write_eof()
                if self._held:
                    self._read_again(writer.transport)
                async with asyncio.timeout(self._linger):
                    while await reader.read(CHUNK):
                        pass
        except (TimeoutError, OSError):
            pass  # it did not want to know
        finally:
            writer.close()

    async def fail(self) -> None:
        """Ends a reply that has begun and cannot be finished: by a reset, so that nobody takes it for whole."""
        if self._told:
            await self.end()
        else:
            self.abort()

    def abort(self) -> None:
        """Resets the connection."""
        if self._streams is None:
            return
        transport = self._streams[1].transport
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    @staticmethod
    def _read_again(transport: asyncio.WriteTransport) -> None:
        """What was lent may wait for many bytes at a time."""
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        cast(asyncio.Transport, transport).resume_reading()

    @property
    def _all_read(self) -> bool:
        return self._ended or self._left == 0


def cut_short(length: int | None, left: int) -> ApiError:
    """A body that ended before its announced length."""
    return internal_error(f"End_of_file: the body ended {left} bytes before its length of {length}")
