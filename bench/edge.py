"""CPU of one trivial call through the edge, beside the smallest ASGI application on uvicorn. `python -m bench.edge`

Both servers run in processes of their own on uvloop; the client keeps one connection and sends the same request. CPU is
the server's own, user and system. "codec" is the part that parsing and encoding take, measured alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from uvicorn import Config, Server

from bench.__main__ import table
from bench.result import Result
from services.api.edge.dispatcher import Answer, Caller, Outcome
from services.api.edge.endpoint import Endpoint, Kind
from services.api.edge.server import Edge
from services.api.edge.tls import Certificates
from services.api.edge.web import Health
from services.api.wire import xmlrpc
from services.api.wire.codec import Codec
from services.api.wire.raw import RawParams
from shared.config import HostConfig
from shared.datamodel.types import STRING

CALLS = 5000
HOST = HostConfig(uuid="bench", name="bench", address="127.0.0.1")
CALL = (
    "<?xml version='1.0'?>\n<methodCall>\n<methodName>VM.get_power_state</methodName>\n<params>\n"
    + "".join(
        f"<param>\n<value><string>OpaqueRef:{n}b1c2d3e-0000-4000-8000-0000000000aa</string></value>\n</param>\n"
        for n in range(2)
    )
    + "</params>\n</methodCall>\n"
).encode()
REQUEST = (
    "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\nContent-Type: text/xml\r\n"
    f"User-Agent: Python-xmlrpc/3.11\r\nContent-Length: {len(CALL)}\r\n\r\n"
).encode() + CALL
FRAGMENT = xmlrpc.encode(STRING, "Running")
REPLY = xmlrpc.parse(CALL).success(FRAGMENT)


class Constant:
    """Always Running; takes the parameters out, as a real dispatcher has to."""

    def call(self, caller: Caller, method: str, params: RawParams, codec: Codec) -> Outcome:
        params.text(0)
        params.get(1, STRING)
        return Answer(FRAGMENT)


class Nothing:
    def health(self, host: str) -> Health:
        return Health(True)

    async def metrics(self, host: str) -> str:
        return ""


async def run_edge(tell: Connection) -> None:
    nobody: Any = None
    with tempfile.TemporaryDirectory() as folder:
        edge = Edge(
            dispatcher=Constant(),
            authenticator=nobody,
            consoles=nobody,
            handlers=nobody,
            facts=Nothing(),
            bus=nobody,
            certificates=Certificates(Path(folder)),
            is_coordinator=lambda host: True,
        )
        [opened] = await edge.listen(HOST, [Endpoint(HOST.uuid, Kind.PLAIN, HOST.address)])
        tell.send(opened.port)
        await answer_cpu(tell)
        await edge.close()


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and replies with as many bytes; parses nothing."""
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    headers = [(b"content-length", b"%d" % len(REPLY)), (b"content-type", b"text/xml")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": REPLY})


async def run_bare(tell: Connection) -> None:
    listener = socket.create_server((HOST.address, 0))
    server = Server(Config(bare, http="httptools", ws="none", lifespan="off", log_level="error", access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
        await asyncio.sleep(0.01)
    tell.send(listener.getsockname()[1])
    await answer_cpu(tell)
    server.should_exit = True
    await serving


async def answer_cpu(tell: Connection) -> None:
    """Sends this process's CPU seconds each time it is asked, until it is told to stop."""
    asked: asyncio.Queue[bool] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(tell.fileno(), lambda: asked.put_nowait(tell.recv()))
    while await asked.get():
        tell.send(time.process_time())
    asyncio.get_running_loop().remove_reader(tell.fileno())


def start(server: Callable[[Connection], None]) -> tuple[Any, Connection, int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=server, args=(theirs,))
    process.start()
    return process, ours, ours.recv()


def edge_process(tell: Connection) -> None:
    uvloop.run(run_edge(tell))


def bare_process(tell: Connection) -> None:
    uvloop.run(run_bare(tell))


def measure(server: Callable[[Connection], None], calls: int) -> tuple[float, float]:
    """CPU microseconds per call, and the median time of one as its client sees it."""
    process, tell, port = start(server)
    with socket.create_connection((HOST.address, port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask() -> None:
            client.sendall(REQUEST)
            received = client.recv(65536)
            while not received.endswith(REPLY[-20:]):
                received += client.recv(65536)

        for _ in range(500):
            ask()
        tell.send(True)
        before = tell.recv()
        times = []
        for _ in range(calls):
            begin = time.perf_counter()
            ask()
            times.append(time.perf_counter() - begin)
        tell.send(True)
        cpu = tell.recv() - before
    tell.send(False)
    process.join()
    return cpu / calls * 1e6, sorted(times)[calls // 2] * 1e6


def codec(calls: int) -> float:
    begin = time.process_time()
    for _ in range(calls):
        call = xmlrpc.parse(CALL)
        RawParams(call.params).get(1, STRING)
        call.success(FRAGMENT)
    return (time.process_time() - begin) / calls * 1e6


def main() -> list[Result]:
    os.environ.pop("PYTHONASYNCIODEBUG", None)
    edge, edge_p50 = measure(edge_process, CALLS)
    plain, plain_p50 = measure(bare_process, CALLS)
    print(f"bench: of the edge's CPU, {codec(CALLS):.1f} us are parsing and encoding")
    return [
        Result(name=f"XML-RPC call, {what}", value=value, unit="us", reference_name="bare uvicorn", reference=reference)
        for what, value, reference in (("CPU", edge, plain), ("p50", edge_p50, plain_p50))
    ]


if __name__ == "__main__":
    print(table(main()))
