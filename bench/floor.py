"""What no API can be quicker than: servers that answer a constant. Each runs in a process of its own, on uvloop.

`socket`: a protocol that writes as soon as anything arrives, so the loop and the kernel alone. `bare`: the smallest
ASGI application on uvicorn (httptools), which reads the request and sends as many bytes as the path says.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import uvloop
from uvicorn import Config, Server

from bench.coordinator import cpu_seconds
from bench.edge import answer_cpu, start

ADDRESS = "127.0.0.1"
SMALL = 150
"""Bytes of a small getter's answer."""


@dataclass(frozen=True)
class Measured:
    """A server under measurement: where it is, and which process."""

    pid: int
    port: int
    host: str = ADDRESS

    @property
    def cpu(self) -> float:
        return cpu_seconds(self.pid)


class _Constant(asyncio.Protocol):
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: keep-alive\r\n\r\n%b" % (SMALL, b"x" * SMALL)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self.reply)


async def _run_socket(tell: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(_Constant, ADDRESS, 0)
    tell.send(server.sockets[0].getsockname()[1])
    await answer_cpu(tell)
    server.close()


@cache
def _bytes(count: int) -> bytes:
    return b"x" * count


async def _application(scope: Any, receive: Any, send: Any) -> None:
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    body = _bytes(int(scope["path"][1:] or SMALL))
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/xml")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _run_bare(tell: Connection) -> None:
    listener = socket.create_server((ADDRESS, 0))
    config = Config(_application, http="httptools", ws="none", lifespan="off", log_level="error", access_log=False)
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
        await asyncio.sleep(0.01)
    tell.send(listener.getsockname()[1])
    await answer_cpu(tell)
    server.should_exit = True
    await serving


def _socket_process(tell: Connection) -> None:
    uvloop.run(_run_socket(tell))


def _bare_process(tell: Connection) -> None:
    uvloop.run(_run_bare(tell))


@contextmanager
def running() -> Iterator[dict[str, Measured]]:
    """Both servers, by name."""
    started = {name: start(run) for name, run in (("socket", _socket_process), ("bare", _bare_process))}
    try:
        yield {name: Measured(process.pid, port) for name, (process, _, port) in started.items()}
    finally:
        for process, tell, _ in started.values():
            tell.send(False)
            process.join(5)
