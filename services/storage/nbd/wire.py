"""One connection to an NBD server: feeds what arrives to the parsers of `protocol`, each byte straight to its place."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

from services.storage.nbd.protocol import Parser, ProtocolError, Result

_EARLY = 4096
"""Bytes that are taken at a time while nobody waits for them."""
_HIGH_WATER = 4 << 20
"""Bytes that wait for the server before writers wait."""


class Wire(asyncio.BufferedProtocol):
    """Little is read while no parser runs, and kept for the next one."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Done when the connection is over, with the reason."""
        self._transport: asyncio.Transport | None = None
        self._parser: Parser[Any] | None = None
        self._ended: asyncio.Future[Any] | None = None
        self._into = memoryview(b"")
        self._early = b""
        self._spare = memoryview(bytearray(_EARLY))
        self._writable = asyncio.Event()
        self._writable.set()

    # ---- for the client

    def run(self, parser: Parser[Result]) -> asyncio.Future[Result]:
        """The parser's result, when it has it; the connection is over when it raises."""
        ended: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._parser, self._ended = parser, ended
        if self.lost.done():
            self._fail(self.lost.result())
        elif self._transport is not None:
            self._resume()
            self._transport.resume_reading()
        return ended

    def send(self, *data: bytes | memoryview) -> None:
        if self._transport is not None and not self.lost.done():
            for each in data:
                self._transport.write(each)

    async def drain(self) -> None:
        """Returns when the server has taken most of what was sent."""
        await self._writable.wait()

    async def secure(self, context: ssl.SSLContext, server_name: str) -> None:
        """Continues inside TLS. Raises OSError (of which TLS's errors are)."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        moved = await loop.start_tls(self._transport, self, context, server_hostname=server_name)
        if moved is None:
            raise ConnectionResetError("the NBD server has closed the connection")
        self._use(moved)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: Exception) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        self._fail(reason)
        self._writable.set()
        if self._transport is not None:
            self._transport.abort()

    # ---- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._use(cast(asyncio.Transport, transport))  # uvloop's are none by their class
        self._pause()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._into if self._parser is not None else self._spare

    def buffer_updated(self, nbytes: int) -> None:
        if self._parser is None:
            self._early += bytes(self._spare[:nbytes])
            self._pause()
            return
        self._into = self._into[nbytes:]
        if not self._into:
            self._resume()

    def connection_lost(self, error: Exception | None) -> None:
        self.abort(error or ConnectionResetError("the NBD server has closed the connection"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _use(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)

    def _resume(self) -> None:
        assert self._parser is not None
        assert self._ended is not None
        try:
            self._into = next(self._parser)
            while self._early:
                taken = min(len(self._early), len(self._into))
                self._into[:taken] = self._early[:taken]
                self._early, self._into = self._early[taken:], self._into[taken:]
                if not self._into:
                    self._into = next(self._parser)
        except StopIteration as end:
            self._parser = None
            self._pause()
            if not self._ended.done():
                self._ended.set_result(end.value)
        except ProtocolError as error:
            self.abort(error)

    def _pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _fail(self, reason: Exception) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(reason)
            self._ended.exception()  # whoever waits gets it; nobody need
        self._parser = None
