"""A VM's text console as a Unix socket: every client gets the recent output first, then all is live, both ways."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

REPLAY = 64 * 1024
"""Bytes of output that a new client gets."""
CLIENT_BACKLOG = 1024 * 1024
"""Bytes that may wait for a client that does not read; then it is cut off, so that it cannot use up the memory."""


class RecentOutput:
    """The last `REPLAY` bytes."""

    def __init__(self, output: bytes = b"") -> None:
        self._bytes = bytearray(output[-REPLAY:])

    def add(self, output: bytes) -> None:
        self._bytes += output
        if len(self._bytes) > 2 * REPLAY:
            del self._bytes[:-REPLAY]

    def get(self) -> bytes:
        return bytes(self._bytes[-REPLAY:])


class Console:
    """`send`: takes what clients type."""

    def __init__(self, path: Path, recent: RecentOutput, send: Callable[[bytes], None]) -> None:
        self.path = path
        self._recent = recent
        self._send = send
        self._clients: set[_Client] = set()
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        self.path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Client(self._clients, self._recent, self._send), self.path
        )
        os.chmod(self.path, 0o600)

    def output(self, data: bytes) -> None:
        """What the guest has written."""
        self._recent.add(data)
        for client in list(self._clients):
            client.write(data)

    async def close(self) -> None:
        for client in list(self._clients):
            client.close()
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class _Client(asyncio.Protocol):
    def __init__(self, clients: set[_Client], recent: RecentOutput, send: Callable[[bytes], None]) -> None:
        self._clients = clients
        self._recent = recent
        self._send = send
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by inheritance
        self._clients.add(self)
        self._transport.write(self._recent.get())

    def data_received(self, data: bytes) -> None:
        self._send(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._clients.discard(self)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        if self._transport.get_write_buffer_size() > CLIENT_BACKLOG:
            self._transport.abort()
        else:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
