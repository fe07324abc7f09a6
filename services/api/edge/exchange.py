"""A request that is not a call, as those see it who serve it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.api.edge.endpoint import Kind
from services.api.edge.reader import Request
from services.api.edge.stream import Stream

if TYPE_CHECKING:
    from services.api.edge.connection import Connection


class Exchange:
    """A request that is not a call, and the connection it came on."""

    def __init__(self, connection: Connection, request: Request, body: bytes) -> None:
        self.head = request.head
        self.row = request.row
        self.caller = request.caller
        self.body = body
        self._connection = connection
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        """The rest of the request's body and the reply to it, for what is too large to be held."""
        if self._stream is None:
            limits = self._connection.limits
            self._stream = Stream(self, limits.stream, limits.linger)
        return self._stream

    @property
    def time_limit(self) -> float:
        """Seconds for which a client may take nothing of what is sent."""
        return self._connection.limits.stream

    @property
    def secure(self) -> bool:
        """Whether nobody between the client and this host can read it."""
        return self.caller.secure or self.caller.trusted

    @property
    def plain(self) -> bool:
        """Whether the connection's bytes are the client's own: there is no TLS."""
        return self._connection.endpoint.kind is not Kind.TLS

    @property
    def early(self) -> bytes:
        """What the client sent ahead of what was read."""
        return self._connection.early

    def take_over(self, *, unread: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection as a pair of streams; no HTTP from here on. What the client sent ahead is read first.

        `unread`: nothing is read until the transport is told to, and what was sent ahead is not in the stream.
        """
        return self._connection.take_over(unread=unread)

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Gives the connection to another protocol, which sees the request from its beginning, and tells the end."""
        self._connection.hand_over(protocol)

    def lost(self, error: Exception | None) -> None:
        """The connection that was handed over has ended."""
        self._connection.connection_lost(error)
