"""One end of a connection that is passed through: read piece by piece at first, then joined to another end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, cast

_AHEAD: Final = 64 << 10
"""Bytes that are taken before somebody waits for them."""
_HIGH_WATER: Final = 1 << 20
"""Bytes that wait for the other side before no more are read."""
_DRAIN_WITHIN: Final = 30.0
"""Seconds that a peer has to take what is left for it when the connection is closed."""


class Lost(Exception):
    """The peer is gone."""


class Pipe(asyncio.Protocol):
    """`arrived`: told of the connection that is made. `lost`: done when it is over."""

    def __init__(self, arrived: Callable[[Pipe], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.transport: asyncio.Transport
        self._arrived = arrived
        self._buffer = bytearray()
        self._more: asyncio.Future[None] | None = None
        self._other: Pipe | None = None
        self._end: asyncio.TimerHandle | None = None

    # ---- piece by piece

    async def take(self, length: int) -> bytes:
        """Raises `Lost`."""
        while len(self._buffer) < length:
            if self.lost.done():
                raise Lost
            self._more = self._loop.create_future()
            self._flow(True)
            await self._more
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    @property
    def ahead(self) -> bool:
        """Whether the peer has sent what nobody has taken yet."""
        return bool(self._buffer)

    async def secure(self, context: ssl.SSLContext, within: float) -> None:
        """The server's side of TLS, from here on; seconds. Raises `Lost`."""
        try:
            moved = await self._loop.start_tls(
                self.transport, self, context, server_side=True, ssl_handshake_timeout=within
            )
        except OSError as error:  # of which TLS's errors are
            raise Lost from error
        if moved is None:
            raise Lost
        self._use(moved)

    # ---- joined

    def join(self, other: Pipe) -> None:
        """From here on all that one of the two gets goes to the other, and both are closed when one is."""
        self._other, other._other = other, self
        for end in (self, other):
            if end._buffer:
                end._pass_on(bytes(end._buffer))
                end._buffer.clear()
            end._flow(True)
            if end.lost.done():
                end._leave()

    def close(self) -> None:
        """What was sent still goes, if the peer takes it in time."""
        if self._end is None and not self.lost.done():
            self._end = self._loop.call_later(_DRAIN_WITHIN, self.transport.abort)
            self.transport.close()

    # ---- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._use(cast(asyncio.Transport, transport))  # uvloop's are none by their class
        if self._arrived is not None:
            self._arrived(self)

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._pass_on(data)
            return
        self._buffer += data
        if len(self._buffer) > _AHEAD:
            self._flow(False)
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        if self._end is not None:
            self._end.cancel()
        self._wake()
        self._leave()

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other._flow(False)

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other._flow(True)

    def _use(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)

    def _flow(self, on: bool) -> None:
        if self.lost.done() or self.transport.is_closing():
            return
        if on:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _pass_on(self, data: bytes) -> None:
        assert self._other is not None
        self._other.send(data)

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def _leave(self) -> None:
        if self._other is not None:
            self._other.close()
