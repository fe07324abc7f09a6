"""A XenAPI client for tests that need many at once: JSON-RPC over one kept connection, on the event loop.

Nothing is retried: what an attack does to a call is what its caller sees.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

DEADLINE = 60.0
"""Seconds within which every call has to end, whatever happens to the pool."""


class Failure(Exception):
    """The pool's answer is an error: `details` is code and parameters."""

    def __init__(self, details: list[str]) -> None:
        super().__init__(details)
        self.details = details

    @property
    def code(self) -> str:
        return self.details[0]


class NoAnswer(Exception):
    """The connection was refused or closed, as it is when the API process dies."""


class Client:
    """One connection, made when it is needed. Calls wait for each other. `session`: given to each call first."""

    def __init__(self, address: str, port: int = 80, session: str = "") -> None:
        self.address = address
        self.port = port
        self.session = session
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()
        self._sent = asyncio.Event()

    async def login(self, password: str, originator: str = "tests") -> None:
        self.session = await self.bare("session.login_with_password", "root", password, "1.0", originator)

    async def call(self, method: str, *params: Any, timeout: float = DEADLINE) -> Any:
        """The result. Raises `Failure`, `NoAnswer`, and `AssertionError` for a call that hangs."""
        return await self.bare(method, self.session, *params, timeout=timeout)

    async def bare(self, method: str, *params: Any, timeout: float = DEADLINE) -> Any:
        """The same without a session."""
        body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        async with self._turn:
            try:
                async with asyncio.timeout(timeout):
                    reply = await self._exchange(body)
            except TimeoutError:
                self.close()
                raise AssertionError(f"{method} has no answer after {timeout:g} s") from None
            except (OSError, asyncio.IncompleteReadError) as error:
                self.close()
                raise NoAnswer(str(error)) from error
        found = orjson.loads(reply)
        if "error" in found:
            raise Failure([found["error"]["message"], *found["error"]["data"]])
        return found["result"]

    async def connected(self) -> None:
        """Until its first request is on its way."""
        await self._sent.wait()

    async def _exchange(self, body: bytes) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.address, self.port)
        reader, writer = self._streams
        head = f"POST /jsonrpc HTTP/1.1\r\nHost: {self.address}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        self._sent.set()
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert " 200 " in status, f"not an answer: {status}"
        length = next(line for line in headers if line.lower().startswith("content-length:"))
        return await reader.readexactly(int(length.partition(":")[2]))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
