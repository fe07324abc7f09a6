"""Bodies and replies of handlers, and clients that lie about them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket

import pytest

from services.api.edge.dispatcher import HttpRefusal
from services.api.edge.endpoint import Kind, Limits
from services.api.edge.exchange import Exchange
from services.api.edge.stream import ClientGone
from shared.errors import ApiError
from tests.api.edge.conftest import HOST, Running, Start
from tests.api.edge.fakes import Client, call, post, unverified

MIB = 1024 * 1024
PUT = "PUT /blob?ref=x&session_id=good HTTP/1.1\r\nHost: h\r\n{}\r\n"


class Echo:
    """A handler that sends a body back (`silent`: that takes it), after `go`. `problem`: what went wrong."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.received = bytearray()
        self.problem: Exception | None = None
        self.silent = False
        self.ended = asyncio.Event()

    async def __call__(self, exchange: Exchange, session: str) -> None:
        try:
            await exchange.stream.start([("connection", "close")])
            await self.go.wait()
            while data := await exchange.stream.read():
                self.received += data
                if self.silent:
                    await asyncio.to_thread(hashlib.sha256, self.received)  # slower than what comes
                else:
                    await exchange.stream.write(data)
        except Exception as problem:
            self.problem = problem
            raise
        finally:
            self.ended.set()


@pytest.fixture
def echo(edge: Running) -> Echo:
    handler = Echo()
    edge.handlers.body = handler
    return handler


async def test_a_body_of_a_known_length_ends_there(edge: Running, echo: Echo) -> None:
    for kind in Kind:
        client = await edge.client(kind)
        reply = await client.ask(PUT.format("Content-Length: 5\r\n") + "helloGET / HTTP/1.1\r\n\r\n")
        assert (reply.line, reply.body) == ("HTTP/1.1 200 OK", b"hello")


async def test_a_body_without_length_ends_with_the_clients_half(edge: Running, echo: Echo) -> None:
    for kind in (Kind.PLAIN, Kind.UNIX):
        client = await edge.client(kind)
        await client.send(PUT.format(""))
        for part in ("hel", "lo"):
            await client.send(part)
        client.writer.write_eof()
        assert (await client.reply()).body == b"hello"


async def test_over_tls_a_body_without_length_ends_with_the_connection(edge: Running, echo: Echo) -> None:
    client = await edge.client(Kind.TLS)
    await client.send(PUT.format(""))
    await client.reader.readuntil(b"\r\n\r\n")
    await client.send("hello")
    client.close()
    await echo.ended.wait()
    assert echo.received == b"hello"


async def test_the_reply_begins_before_the_body_is_there(edge: Running, echo: Echo) -> None:
    client = await edge.client()
    await client.send(PUT.format("Content-Length: 5\r\n"))
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    await client.send("hello")
    assert await client.reader.read() == b"hello"


GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_client_that_waits_for_leave_to_send_gets_it_once_before_the_reply(edge: Running, echo: Echo) -> None:
    client = await edge.client()
    await client.send(PUT.format("Content-Length: 5\r\nExpect: 100-Continue\r\n"))
    assert await client.reader.readuntil(b"\r\n\r\n") == GO_ON
    assert (await client.ask("hello")).body == b"hello"


async def test_who_reads_before_it_replies_gives_leave_to_send(edge: Running) -> None:
    async def reading(exchange: Exchange, session: str) -> None:
        data = await exchange.stream.read_all(10)
        await exchange.stream.start()
        await exchange.stream.write(data.upper())

    edge.handlers.body = reading
    client = await edge.client()
    await client.send(PUT.format("Content-Length: 5\r\nExpect: 100-continue\r\n"))
    assert await client.reader.readuntil(b"\r\n\r\n") == GO_ON
    assert (await client.ask("hello")).body == b"HELLO"


@pytest.mark.parametrize(
    "headers", ["Content-Length: 5\r\nExpect: 200-maybe\r\n", "Expect: 100-continue\r\nContent-Length: 0\r\n"]
)
async def test_nobody_else_is_given_leave_to_send(edge: Running, echo: Echo, headers: str) -> None:
    client = await edge.client()
    await client.send(PUT.format(headers))
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_a_refused_upload_is_not_asked_for(edge: Running) -> None:
    async def refusing(exchange: Exchange, session: str) -> None:
        raise ApiError("VDI_MISSING")

    edge.handlers.body = refusing
    client = await edge.client()
    await client.send(PUT.format("Content-Length: 5\r\nExpect: 100-continue\r\n"))
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 500")


async def test_a_body_that_is_cut_short_is_an_error_and_a_reset(edge: Running, echo: Echo) -> None:
    client = await edge.client()
    await client.send(PUT.format("Content-Length: 10\r\n") + "hello")
    client.writer.write_eof()
    with contextlib.suppress(ConnectionResetError):
        await client.reader.read()
    assert isinstance(echo.problem, ApiError)
    assert echo.problem.params[0].startswith("End_of_file")


async def test_over_tls_a_client_may_close_when_it_has_sent_all(edge: Running, echo: Echo) -> None:
    """As `xe` does: a handler that takes its time gets everything all the same."""
    body = random.Random(1).randbytes(4 * MIB)
    echo.silent = True

    def upload() -> None:
        with unverified().wrap_socket(socket.create_connection((HOST.address, edge.tls_port))) as client:
            client.sendall(PUT.format(f"Content-Length: {len(body)}\r\n").encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            client.sendall(body)

    await asyncio.to_thread(upload)
    await asyncio.wait_for(echo.ended.wait(), 10)
    assert echo.received == body


async def test_nobody_reads_ahead_of_a_handler(edge: Running, echo: Echo) -> None:
    """A gigabyte that is announced, of which the client gets rid of what the sockets hold."""
    echo.go.clear()
    client = await edge.client()
    await client.send(PUT.format(f"Content-Length: {1024 * MIB}\r\n"))
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 1024 * MIB:
            async with asyncio.timeout(0.5):
                await client.send(bytes(MIB))
            sent += MIB
    assert sent < 32 * MIB


async def test_nobody_writes_ahead_of_a_client(start: Start) -> None:
    edge = await start(limits=Limits(stream=0.3, linger=0.1))
    written = 0
    problem: list[Exception] = []

    async def endless(exchange: Exchange, session: str) -> None:
        nonlocal written
        await exchange.stream.start()
        try:
            while True:
                await exchange.stream.write(bytes(MIB))
                written += MIB
        except ClientGone as gone:
            problem.append(gone)
            raise

    edge.handlers.body = endless
    client = await edge.client()
    await client.send(PUT.format("Content-Length: 0\r\n"))
    await edge.until(lambda: bool(problem))
    assert written < 32 * MIB
    await edge.until(lambda: not edge.edge.connections)


async def test_a_client_that_falls_silent_is_given_up(start: Start) -> None:
    edge = await start(limits=Limits(stream=0.2, linger=0.1))
    edge.handlers.body = echo = Echo()
    client = await edge.client()
    await client.send(PUT.format("Content-Length: 10\r\n") + "hello")
    await echo.ended.wait()
    assert isinstance(echo.problem, ClientGone)
    await edge.until(lambda: not edge.edge.connections)


async def test_a_client_that_goes_away_ends_its_reply(edge: Running, echo: Echo) -> None:
    client = await edge.client()
    await client.send(PUT.format(f"Content-Length: {64 * MIB}\r\n") + "x" * MIB)
    client.writer.transport.abort()
    await echo.ended.wait()
    assert echo.problem is not None
    await edge.until(lambda: not edge.edge.connections)


PROBLEMS: list[tuple[Exception, str, bytes]] = [
    (HttpRefusal(404, bare=True), "HTTP/1.1 404 Not Found", b""),
    (HttpRefusal(404, bare=True, http10=True), "HTTP/1.0 404 Not Found", b""),
    (HttpRefusal(401, realm="r"), "HTTP/1.1 401 Unauthorised", b"not authorised"),
    (ApiError("SESSION_INVALID", "x"), "HTTP/1.1 401 Unauthorised", b"not authorised"),
    (ApiError("HANDLE_INVALID", "VM", "x"), "HTTP/1.1 500 Internal Error", b"HANDLE_INVALID: [ VM; x ]"),
    (ValueError("oops"), "HTTP/1.1 500 Internal Error", b"ValueError: oops"),
]


async def test_what_a_handler_raises_before_its_reply_is_the_reply(edge: Running) -> None:
    """Whether it has read the body before or not, and while the client is still sending."""
    for problem, line, rest in PROBLEMS:
        for reads in (False, True):

            async def fail(exchange: Exchange, _: str, reads: bool = reads, problem: Exception = problem) -> None:
                if reads:
                    await exchange.stream.read(10)
                raise problem

            edge.handlers.body = fail
            client = await edge.client()
            await client.send(PUT.format("Content-Length: 3000000\r\n") + "x" * MIB)
            reply = await client.reply()
            assert (reply.line, rest in reply.body, reply["connection"]) == (line, True, "close")
            if reply.status == 401:
                realm = "r" if isinstance(problem, HttpRefusal) else "put_blob"
                assert reply["www-authenticate"] == f'Basic realm="{realm}"'


async def test_another_host_is_named_by_a_redirect_without_a_body(edge: Running) -> None:
    async def elsewhere(exchange: Exchange, session: str) -> None:
        raise HttpRefusal(302, location="https://10.0.0.1/blob?ref=x\r\nSet-Cookie: a=b")

    edge.handlers.body = elsewhere
    reply = await (await edge.client()).ask(PUT.format("Content-Length: 0\r\n"))
    assert (reply.line, reply.body) == ("HTTP/1.1 302 Found", b"")
    assert reply["location"] == "https://10.0.0.1/blob?ref=xSet-Cookie: a=b"  # one header, whatever it is


async def test_a_handler_that_says_nothing_is_an_error(edge: Running) -> None:
    async def silent(exchange: Exchange, session: str) -> None:
        pass

    edge.handlers.body = silent
    assert (await (await edge.client()).ask(PUT.format("Content-Length: 0\r\n"))).status == 500


async def test_a_small_body_can_be_had_whole(edge: Running) -> None:
    async def whole(exchange: Exchange, session: str) -> None:
        data = await exchange.stream.read_all(10)
        await exchange.stream.start()
        await exchange.stream.write(data.upper())

    edge.handlers.body = whole
    assert (await (await edge.client()).ask(PUT.format("Content-Length: 5\r\n") + "hello")).body == b"HELLO"
    assert (await (await edge.client()).ask(PUT.format("Content-Length: 11\r\n") + "hello hello")).status == 500
    client = await edge.client()
    await client.send(PUT.format("") + "hello hello")
    assert (await client.reply()).status == 500


# ---- requests in disguise


SMUGGLED = call("test.echo", "s", "smuggled")


TWO_WAYS = [
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding:\tchunked\r\n",
    "Content-Length: 4\r\nContent-Length: 5\r\n",
    "Content-Length: 4, 5\r\n",
    "Content-Length: +4\r\n",
    "Content-Length: 4 4\r\n",
    "Content-Length: 0x4\r\n",
    "Content-Length: \u0664\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length:\r\n",
    "Content-Length : 4\r\n",
    " Content-Length: 4\r\n",
    "A: b\r\n Content-Length: 4\r\n",
    "A: b\r\n\tfolded\r\n",
    "A: b\nContent-Length: 4\r\n",
    "A: b\rContent-Length: 4\r\n",
    "A: b\0c\r\n",
    ": nameless\r\n",
]


async def test_a_request_whose_end_can_be_read_in_two_ways_is_refused(edge: Running) -> None:
    """And nothing that follows it on the connection is looked at."""
    for headers in TWO_WAYS:
        for method, path in (("POST", "/"), ("PUT", "/blob?ref=x&session_id=good")):
            client = await edge.client()
            head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode()
            await client.send(head + b"0\r\n\r\n" + post(SMUGGLED))
            reply = await client.reply()
            assert (headers, reply.status, reply["connection"]) == (headers, 500, "close")
            assert await _rest(client) == b""
    assert not any(method == "test.echo" for _, method, _ in edge.dispatcher.calls)


async def _rest(client: Client) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return await client.reader.read()
    return b""


async def test_lines_that_end_without_a_carriage_return_are_no_head(quick: Running) -> None:
    client = await quick.client()
    reply = await client.ask("GET /blob?ref=x HTTP/1.1\nHost: h\n\n")
    assert reply.status == 408


async def test_heads_without_end_are_cut_off(edge: Running) -> None:
    for kind, most in ((Kind.PLAIN, 1024), (Kind.TLS, 16 * 1024)):
        for bomb in ("A: b\r\n" * 100_000, "A" * 600_000, "A: " + "b" * 600_000):
            client = await edge.client(kind)
            with contextlib.suppress(ConnectionError):
                await client.send("GET / HTTP/1.1\r\n" + bomb)
            assert (await client.reply()).status == 431, most


async def test_a_gigabyte_to_the_api_is_not_kept(edge: Running) -> None:
    """What a client goes on sending after its refusal is thrown away, for as long as it may read the refusal."""
    client = await edge.client()
    await client.send(f"POST / HTTP/1.1\r\nContent-Length: {1024 * MIB}\r\n\r\n")
    assert (await client.reply()).status == 500
    with contextlib.suppress(ConnectionError):
        for _ in range(256):
            await client.send(bytes(MIB))
            assert all(len(connection.reader.buffer) < MIB for connection in edge.edge.connections)
