"""Console connections, with a backend that is a Unix socket."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.api.edge import websocket
from services.api.edge.endpoint import Kind
from services.api.edge.websocket import Opcode
from tests.api.edge.conftest import Running
from tests.api.edge.fakes import Client

CONNECT = "CONNECT /console?ref=OpaqueRef:c&session_id=good HTTP/1.0\r\n\r\n"
UPGRADE = (
    "GET /console?uuid=c&session_id=good HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n"
)


class Backend:
    """The VM's side: says hello, then echoes; `stop` makes it hang up, `deaf` makes it not read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.deaf = False
        self.ended = asyncio.Event()
        self.received = b""
        self.stop = asyncio.Event()

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"RFB 003.008\n")
        stop = asyncio.create_task(self.stop.wait())
        try:
            while not self.stop.is_set():
                if self.deaf:
                    await self.stop.wait()
                    break
                read = asyncio.create_task(reader.read(65536))
                await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    read.cancel()
                    break
                if not (data := read.result()):
                    break
                self.received += data
                writer.write(data.upper())
                await writer.drain()
        finally:
            stop.cancel()
            writer.close()
            self.ended.set()


@pytest.fixture
async def backend(edge: Running, tmp_path: Path) -> AsyncIterator[Backend]:
    made = Backend(tmp_path / "vnc")
    await made.start()
    edge.consoles.paths = {"OpaqueRef:c": str(made.path), "c": str(made.path), "gone": str(tmp_path / "nothing")}
    yield made
    made.stop.set()
    made.server.close()


async def connected(client: Client) -> None:
    await client.send(CONNECT)
    assert await client.reader.readuntil(b"\r\n\r\n") == (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"
    )
    assert await client.reader.readuntil(b"\n") == b"RFB 003.008\n"


@pytest.mark.parametrize("kind", list(Kind))
async def test_bytes_go_both_ways(edge: Running, backend: Backend, kind: Kind) -> None:
    client = await edge.client(kind)
    await connected(client)
    await client.send(b"key\x00")
    assert await client.reader.readexactly(4) == b"KEY\x00"


async def test_the_consoles_first_bytes_do_not_come_with_the_headers(edge: Running, backend: Backend) -> None:
    client = await edge.client()
    await client.send(CONNECT)
    assert (await client.reader.read(65536)).endswith(b"\r\n\r\n")


async def test_when_the_client_goes_the_backend_is_left(edge: Running, backend: Backend) -> None:
    client = await edge.client(Kind.TLS)
    await connected(client)
    client.close()
    async with asyncio.timeout(30):
        await backend.ended.wait()
    await edge.until(lambda: not edge.edge.connections)
    assert edge.authenticator.ended == 1


async def test_when_the_backend_goes_the_client_is_left(edge: Running, backend: Backend) -> None:
    client = await edge.client()
    await connected(client)
    backend.stop.set()
    assert await client.at_end()
    await edge.until(lambda: not edge.edge.connections)


async def test_a_slow_backend_slows_the_client_down(edge: Running, backend: Backend) -> None:
    backend.deaf = True
    client = await edge.client()
    await connected(client)
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await client.send(bytes(65536))
            sent += 65536

    task = asyncio.create_task(flood())
    before = -1
    while before != sent:  # until a while passes in which nothing moves
        before = sent
        await asyncio.sleep(0.1)
    task.cancel()
    assert sent < 32 * 1024 * 1024


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("session_id=good", 500),
        ("ref=unknown&session_id=good", 404),
        ("ref=gone&session_id=good", 404),
        ("ref=OpaqueRef:c&session_id=bad", 401),
        ("ref=OpaqueRef:c", 401),
        ("ref=OpaqueRef:c&session_id=weak", 403),
    ],
)
async def test_a_console_that_cannot_be_had_is_refused(
    edge: Running, backend: Backend, query: str, status: int
) -> None:
    for request in (
        f"CONNECT /console?{query} HTTP/1.1\r\n\r\n",
        UPGRADE.format("").replace("uuid=c&session_id=good", query),
    ):
        assert (await (await edge.client()).ask(request)).status == status


# ---- websocket


class WebClient:
    def __init__(self, client: Client) -> None:
        self.client = client

    async def send(self, opcode: Opcode, payload: bytes, final: bool = True) -> None:
        key = os.urandom(4)
        whole = bytearray(websocket.frame(opcode, payload))
        head = whole[: len(whole) - len(payload)]
        head[0] = (0x80 if final else 0) | opcode
        head[1] |= 0x80
        masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
        await self.client.send(bytes(head) + key + masked)

    async def receive(self) -> tuple[int, bytes]:
        first, length = await self.client.reader.readexactly(2)
        assert not length & 0x80, "a server does not mask"
        if length >= 126:
            length = int.from_bytes(await self.client.reader.readexactly(2 if length == 126 else 8), "big")
        return first & 0x0F, await self.client.reader.readexactly(length)


async def upgraded(edge: Running, kind: Kind = Kind.PLAIN) -> WebClient:
    client = await edge.client(kind)
    await client.send(UPGRADE.format("Sec-WebSocket-Protocol: base64, binary\r\n"))
    head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 101 ")
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert "Sec-WebSocket-Protocol: binary\r\n" in head
    web = WebClient(client)
    assert await web.receive() == (Opcode.BINARY, b"RFB 003.008\n")
    return web


@pytest.mark.parametrize("kind", [Kind.PLAIN, Kind.TLS])
async def test_a_websocket_carries_the_same_bytes(edge: Running, backend: Backend, kind: Kind) -> None:
    web = await upgraded(edge, kind)
    await web.send(Opcode.BINARY, b"key", final=False)
    await web.send(Opcode.PING, b"p")
    await web.send(Opcode.CONTINUATION, b"s" * 70000)
    received, pong = b"", 0
    while len(received) < 70003:
        opcode, payload = await web.receive()
        pong += opcode == Opcode.PONG
        received += payload if opcode == Opcode.BINARY else b""
    assert received == b"KEY" + b"S" * 70000
    assert pong == 1


async def test_a_websocket_is_closed_in_good_order(edge: Running, backend: Backend) -> None:
    web = await upgraded(edge)
    await web.send(Opcode.CLOSE, (1000).to_bytes(2, "big"))
    assert await web.receive() == (Opcode.CLOSE, (1000).to_bytes(2, "big"))
    assert await web.client.at_end()
    other = await upgraded(edge)
    backend.stop.set()
    assert await other.receive() == (Opcode.CLOSE, (1000).to_bytes(2, "big"))
    assert await other.client.at_end()


async def test_a_client_that_breaks_the_protocol_is_told_so(edge: Running, backend: Backend) -> None:
    web = await upgraded(edge)
    await web.client.send(websocket.frame(Opcode.BINARY, b"not masked"))
    assert await web.receive() == (Opcode.CLOSE, (1002).to_bytes(2, "big"))
    assert await web.client.at_end()


async def test_without_an_upgrade_there_is_no_websocket(edge: Running, backend: Backend) -> None:
    reply = await (await edge.client()).ask("GET /console?ref=OpaqueRef:c&session_id=good HTTP/1.1\r\n\r\n")
    assert reply.status == 400
