"""Consoles: the client's connection and a Unix socket of the VM's backend, joined byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from services.api.edge import websocket
from services.api.edge.dispatcher import Consoles, HttpRefusal
from services.api.edge.exchange import Exchange
from services.api.edge.websocket import Opcode

log = logging.getLogger("edge")

CHUNK = 64 * 1024
BANNER_PAUSE = 0.1
"""Seconds between our headers and the first bytes of the console. The xe program reads headers through a buffer and
then the bare descriptor, so it loses what arrives together with them; RFB servers speak first."""

_CONNECTED = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"


async def serve(exchange: Exchange, consoles: Consoles, session: str) -> None:
    """`CONNECT /console`: raw bytes both ways until either side closes."""
    async with _backend(exchange, consoles, session) as (from_vm, to_vm):
        reader, writer = exchange.take_over()
        with _closing(writer):
            writer.write(_CONNECTED)
            await writer.drain()
            await asyncio.sleep(BANNER_PAUSE)
            await _until_one_ends(_copy(reader, to_vm), _copy(from_vm, writer))


async def serve_websocket(exchange: Exchange, consoles: Consoles, session: str) -> None:
    """`GET /console` with an upgrade: the same in binary frames."""
    headers = exchange.head.headers
    key = headers.get("sec-websocket-key")
    if key is None or headers.get("upgrade", "").lower() != "websocket":
        raise HttpRefusal(400, "A console is reached by CONNECT, or by GET with an upgrade to a websocket.")
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {websocket.accept(key)}")
    offered = {word.strip() for word in headers.get("sec-websocket-protocol", "").split(",")}
    if "binary" in offered:
        lines.append("Sec-WebSocket-Protocol: binary")
    async with _backend(exchange, consoles, session) as (from_vm, to_vm):
        reader, writer = exchange.take_over()
        with _closing(writer):
            writer.write("\r\n".join([*lines, "", ""]).encode())
            await _until_one_ends(_unframe(reader, to_vm, writer), _frame(from_vm, writer))


@contextlib.asynccontextmanager
async def _backend(
    exchange: Exchange, consoles: Consoles, session: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    query = exchange.head.query()
    if not query.get("ref") and not query.get("uuid"):
        raise HttpRefusal(500, "A ref or uuid of a console or VM is needed.")
    path = await consoles.console_endpoint(exchange.caller, session, query, exchange.row.permission)
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=CHUNK)
    except OSError as error:
        log.warning("the console at %s cannot be reached: %s", path, error)
        raise HttpRefusal(404, "The console is not available.") from None
    with _closing(writer):
        yield reader, writer


@contextlib.contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()


async def _until_one_ends(*directions: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, OSError):
            raise error


async def _copy(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    change: Callable[[bytes], bytes] = lambda data: data,
) -> None:
    while data := await source.read(CHUNK):
        sink.write(change(data))
        await sink.drain()
    await sink.drain()


async def _frame(from_vm: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
    await _copy(from_vm, client, lambda data: websocket.frame(Opcode.BINARY, data))
    client.write(websocket.close(1000))
    await client.drain()


async def _unframe(client: asyncio.StreamReader, to_vm: asyncio.StreamWriter, reply: asyncio.StreamWriter) -> None:
    frames = websocket.Reader()
    while data := await client.read(CHUNK):
        try:
            arrived = frames.feed(data)
        except websocket.ProtocolError as error:
            reply.write(websocket.close(error.code))
            return
        for frame in arrived:
            if frame.opcode is Opcode.CLOSE:
                reply.write(websocket.frame(Opcode.CLOSE, frame.payload[:2]))
                return
            if frame.opcode is Opcode.PING:
                reply.write(websocket.frame(Opcode.PONG, frame.payload))
            elif frame.opcode is not Opcode.PONG:
                to_vm.write(frame.payload)
        await to_vm.drain()
