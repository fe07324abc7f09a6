"""What stands behind the edge in its tests, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from services.api.edge.dispatcher import (
    Answer,
    Basic,
    Caller,
    Credential,
    HttpRefusal,
    Outcome,
    PoolSecret,
    Session,
    Trusted,
    Waiting,
)
from services.api.edge.exchange import Exchange
from services.api.edge.web import Health
from services.api.wire.codec import Codec
from services.api.wire.raw import RawParams
from shared.bus.interface import HostOffline
from shared.contracts import cli
from shared.datamodel.types import INT, STRING, STRING_MAP, SetType
from shared.errors import ApiError


def _numbered(codec: Codec, count: int) -> tuple[list[str], list[bytes]]:
    """Names and fragments of a long map: each of a kilobyte."""
    names = [str(number) for number in range(count)]
    return names, [codec.encoder(STRING)(name.zfill(1000)) for name in names]


class FakeDispatcher:
    """Answers a few methods. `calls`: what arrived. `gate`: what `test.wait` and `test.work` wait for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Caller, str, list[Any]]] = []
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()
        self.finished = asyncio.Event()
        self.cancelled = asyncio.Event()

    def call(self, caller: Caller, method: str, params: RawParams, codec: Codec) -> Outcome:
        self.calls.append((caller, method, params.values))
        if method == "session.login_with_password":
            return Answer(codec.encoder(STRING)("OpaqueRef:session"))
        if method == "test.echo":
            return Answer(codec.encoder(STRING)(params.get(1, STRING)))
        if method == "test.add":
            return Answer(codec.encoder(INT)(params.get(1, INT) + params.get(2, INT)))
        if method == "test.map":
            return Answer(codec.encoder(STRING_MAP)(params.get(1, STRING_MAP)))
        if method == "system.listMethods":
            return Answer(codec.encoder(SetType(STRING))(["a.b"]), bare=True)
        if method == "test.slave":
            return Answer(error=["HOST_IS_SLAVE", "127.0.0.1"], thumbprint="abcd")
        if method == "test.emergency":
            return Answer(error=["HOST_STILL_BOOTING"], early=True)
        if method == "test.large":
            return Answer(codec.encoder(STRING)("x" * params.get(1, INT)))
        if method == "test.pieces":
            return Answer(pieces=codec.map_pieces(*_numbered(codec, params.get(1, INT))))
        if method == "test.bug":
            raise KeyError("oops")
        if method == "test.refused":
            raise HttpRefusal(500, "no such thing")
        if method == "test.wait":
            return Waiting(self._wait(codec))
        if method in ("test.work", "test.late"):
            return self._wait(codec, ApiError("LATE", "p") if method == "test.late" else None)
        raise ApiError("MESSAGE_METHOD_UNKNOWN", method)

    async def _wait(self, codec: Codec, error: ApiError | None = None) -> Answer:
        self.waiting.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.finished.set()
        if error is not None:
            raise error
        return Answer(codec.encoder(STRING)("done"))


class FakeAuthenticator:
    """`good` is a session, `root`/`secret` a login, `pool` a secret; `weak` is a session that may nothing."""

    def __init__(self) -> None:
        self.log: list[tuple[Credential, str]] = []
        self.ended = 0

    @contextlib.asynccontextmanager
    async def session(self, caller: Caller, credential: Credential, permission: str) -> AsyncIterator[str]:
        self.log.append((credential, permission))
        match credential:
            case Trusted() | Session("good") | PoolSecret("pool") | Basic("root", "secret"):
                pass
            case Session("weak"):
                raise ApiError("RBAC_PERMISSION_DENIED", permission, "no")
            case Session(ref):
                raise ApiError("SESSION_INVALID", ref)
            case _:
                raise ApiError("SESSION_AUTHENTICATION_FAILED", "x", "y")
        try:
            yield "OpaqueRef:session"
        finally:
            self.ended += 1


class FakeHandlers:
    """`body`: what a handler does with a request; as it is, it answers 200 with nothing."""

    def __init__(self) -> None:
        self.body: Callable[[Exchange, str], Awaitable[None]] = self._nothing
        self.refused: list[HttpRefusal | ApiError] = []
        self.forbade: list[ApiError] = []

    async def _nothing(self, exchange: Exchange, session: str) -> None:
        await exchange.stream.start([("content-length", "0"), ("connection", "close")])

    async def serve(self, exchange: Exchange, session: str) -> None:
        await self.body(exchange, session)

    def refuse(self, exchange: Exchange) -> None:
        pass

    async def failed(self, exchange: Exchange, session: str, error: HttpRefusal | ApiError) -> None:
        self.refused.append(error)

    async def forbidden(self, exchange: Exchange, credential: Credential, error: ApiError) -> None:
        self.forbade.append(error)


class FakeConsoles:
    """`paths`: console ref or uuid -> Unix socket; anything else is refused."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}

    async def console_endpoint(self, caller: Caller, session: str, query: dict[str, str], permission: str) -> str:
        found = self.paths.get(query.get("ref") or query["uuid"])
        if found is None:
            raise HttpRefusal(404, "no such console")
        return found


class FakeFacts:
    ready = True

    def health(self, host: str) -> Health:
        return Health(self.ready, {"host": host})

    async def metrics(self, host: str) -> str:
        return "a_counter 1\n"


Script = Callable[[cli.CliCommand, "asyncio.Queue[bytes]"], AsyncIterator[bytes]]


class FakeBus:
    """The two methods of the CLI service. `script`: what it says; None: there is no such service."""

    def __init__(self) -> None:
        self.script: Script | None = None
        self.commands: list[cli.CliCommand] = []
        self.input: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = asyncio.Event()

    async def stream(
        self, method: Any, request: cli.CliCommand, *, host: str | None = None
    ) -> AsyncIterator[cli.Frames]:
        if self.script is None:
            raise HostOffline(host)
        self.commands.append(request)
        try:
            async for part in self.script(request, self.input):
                yield cli.Frames(data=base64.b64encode(part).decode())
        finally:
            self.ended.set()

    async def call(self, method: Any, request: cli.CliInput, **_: Any) -> Any:
        if self.script is None:
            raise HostOffline("host")
        self.input.put_nowait(base64.b64decode(request.data))


# ---- a client that speaks bytes


PATIENCE = 20.0
"""Seconds after which a server that says nothing has failed the test."""


class Client:
    """A connection of a test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        """One HTTP reply; up to the end of the connection when it has no length."""
        async with asyncio.timeout(PATIENCE):
            return await self._reply()

    async def _reply(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = head[:-4].split("\r\n")
        headers = [(name, value) for name, _, value in (each.partition(": ") for each in lines)]
        length = next((int(value) for name, value in headers if name == "content-length"), None)
        body = await self.reader.read() if length is None else await self.reader.readexactly(length)
        return Reply(line, headers, body)

    async def ask(self, data: bytes | str) -> Reply:
        await self.send(data)
        return await self.reply()

    async def at_end(self) -> bool:
        """Whether the server has closed, without a byte more."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


class Reply:
    def __init__(self, line: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.line, self.headers, self.body = line, headers, body
        self.status = int(line.split(" ")[1])

    @property
    def value(self) -> str:
        """The text of a call's Value."""
        found = re.search(rb"<name>Value</name><value>(.*?)</value>", self.body)
        assert found is not None, self.body
        return found[1].decode()

    def __getitem__(self, name: str) -> str:
        return next(value for key, value in self.headers if key.lower() == name)


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def call(method: str, *params: str, value: str = "") -> bytes:
    values = "".join(f"<param><value><string>{p}</string></value></param>" for p in params) + value
    return f"<methodCall><methodName>{method}</methodName><params>{values}</params></methodCall>".encode()


def post(body: bytes, path: str = "/", version: str = "1.1", headers: str = "") -> bytes:
    return f"POST {path} HTTP/{version}\r\nHost: h\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def cli_frame(*numbers: int, text: bytes | None = None) -> bytes:
    payload = struct.pack(f"<{len(numbers)}i", *numbers)
    if text is not None:
        payload += struct.pack("<i", len(text)) + text
    return struct.pack("<i", len(payload)) + payload
