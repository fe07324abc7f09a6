"""Thousands of HTTP clients in one process, as light as they can be: what is measured is the server."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from typing import Any

PORTS = 4000
"""Connections from one loopback address, so that its ephemeral ports are enough."""


def call(method: str, *params: Any) -> bytes:
    """A JSON-RPC request, head and body."""
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
    return b"POST /jsonrpc HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Client(asyncio.Protocol):
    """One connection with one call at a time. `answered_at`: when the whole answer was there, by `perf_counter`."""

    __slots__ = ("_answer", "_done", "_expected", "_received", "answered_at", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.answered_at = 0.0
        self._received: list[bytes] = []
        self._expected = -1
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(f"the server has closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        if self._expected < 0:
            head, end, body = b"".join(self._received).partition(b"\r\n\r\n")
            if not end:
                return
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self._expected = int(length.partition(b":")[2])
            self._received = [body]
        self._expected -= len(data) if len(self._received) > 1 else len(self._received[0])
        if self._expected == 0 and self._done is not None and not self._done.done():
            self.answered_at = time.perf_counter()
            self._done.set_result(None)

    def send(self, request: bytes) -> asyncio.Future[None]:
        """Done when the whole answer is there."""
        self._received, self._expected = [], -1
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._done

    @property
    def body(self) -> bytes:
        return b"".join(self._received)

    async def ask(self, method: str, *params: Any) -> Any:
        """The result of a call. Raises `RuntimeError` for a failure."""
        await self.send(call(method, *params))
        answer = json.loads(self.body)
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer["result"]


async def connect(host: str, port: int, source: str | None = None) -> Client:
    loop = asyncio.get_running_loop()
    local = (source, 0) if source else None
    _, client = await loop.create_connection(Client, host, port, local_addr=local)
    return client


async def connect_many(host: str, port: int, count: int) -> list[Client]:
    """From as many loopback addresses as it takes, a hundred at a time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 512:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 512, hard), hard))
    clients: list[Client] = []
    while len(clients) < count:
        some = range(len(clients), min(len(clients) + 100, count))
        clients += await asyncio.gather(*(connect(host, port, f"127.0.9.{n // PORTS + 1}") for n in some))
    return clients
