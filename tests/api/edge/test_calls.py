"""Calls through real sockets: the real client, and bytes."""

import asyncio
import json
import socket
import ssl
import xmlrpc.client
from typing import Any

import pytest
import XenAPI

from services.api.edge.endpoint import Kind
from tests.api.edge.conftest import HOST, Running
from tests.api.edge.fakes import call, post, unverified


def session(url: str) -> Any:
    return XenAPI.Session(url, ignore_ssl=True)


def use(url: str) -> list[Any]:
    client = session(url)
    client.login_with_password("root", "x", "1.0", "test")
    answers = [client.xenapi.test.echo("<ä&>"), client.xenapi.test.add("2", 3), client.xenapi.test.map({"<k>": "v"})]
    with pytest.raises(XenAPI.Failure) as failure:
        client.xenapi.VM.frob()
    return [*answers, failure.value.details]


@pytest.mark.parametrize("kind", [Kind.PLAIN, Kind.TLS])
async def test_the_real_client_works(edge: Running, kind: Kind) -> None:
    url = f"http://127.0.0.1:{edge.port}" if kind is Kind.PLAIN else f"https://127.0.0.1:{edge.tls_port}"
    answers = await asyncio.to_thread(use, url)
    assert answers == ["<ä&>", "5", {"<k>": "v"}, ["MESSAGE_METHOD_UNKNOWN", "VM.frob"]]
    caller = edge.dispatcher.calls[0][0]
    assert (caller.host, caller.address, caller.trusted) == (HOST.uuid, "127.0.0.1", False)
    assert caller.secure is (kind is Kind.TLS)
    assert edge.edge.statistics.accepted == 1, "the client's connection is kept alive"


async def test_the_real_client_is_root_on_the_unix_socket(edge: Running) -> None:
    class Transport(XenAPI.UDSTransport):  # type: ignore[misc]
        def make_connection(self, host: str) -> Any:
            self._extra_headers: list[tuple[str, str]] = []
            connection = XenAPI.UDSHTTPConnection("localhost")
            connection.connect = lambda: setattr(connection, "sock", _connected(str(edge.socket)))
            return connection

    def login() -> None:
        XenAPI.Session("http://localhost", transport=Transport()).login_with_password("root", "", "1.0", "test")

    await asyncio.to_thread(login)
    assert edge.dispatcher.calls[0][0].trusted


def _connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(path)
    return made


@pytest.mark.parametrize(
    ("maximum", "ciphers", "curve"),
    [
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES256-GCM-SHA384", "secp384r1"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256", "secp384r1"),
        (ssl.TLSVersion.TLSv1_3, None, None),
    ],
)
async def test_old_and_new_tls_clients_are_served(edge: Running, maximum: Any, ciphers: Any, curve: Any) -> None:
    context = unverified()
    context.maximum_version = maximum
    if ciphers:
        context.set_ciphers(ciphers)
        context.set_ecdh_curve(curve)
    client = await edge.client(Kind.TLS, context)
    assert (await client.ask(post(call("test.echo", "s", "x")))).value == "x"
    chosen = client.writer.get_extra_info("cipher")
    assert chosen[0] == ciphers if ciphers else chosen[1] == "TLSv1.3"


async def test_the_headers_of_an_answer_are_those_of_the_original(edge: Running) -> None:
    reply = await (await edge.client()).ask(post(call("test.echo", "s", "x")))
    assert reply.line == "HTTP/1.1 200 OK"
    assert reply.headers == [
        ("content-length", str(len(reply.body))),
        ("connection", "keep-alive"),
        ("cache-control", "no-cache, no-store"),
        ("content-type", "text/xml"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Headers", "X-Requested-With"),
    ]


@pytest.mark.parametrize(
    ("version", "headers", "line", "open_"),
    [
        ("1.0", "", "HTTP/1.0 200 OK", False),
        ("1.1", "", "HTTP/1.1 200 OK", True),
        ("1.1", "Connection: Close\r\n", "HTTP/1.1 200 OK", False),
        ("2.0", "", "HTTP/1.1 200 OK", True),
    ],
)
async def test_connections_are_kept_as_the_version_says(
    edge: Running, version: str, headers: str, line: str, open_: bool
) -> None:
    client = await edge.client()
    request = post(call("test.echo", "s", "x"), version=version, headers=headers)
    reply = await client.ask(request)
    assert reply.line == line
    assert reply["connection"] == ("keep-alive" if open_ else "close")
    if open_:
        assert (await client.ask(request)).value == "x"
    else:
        assert await client.at_end()


@pytest.mark.parametrize(
    "path", ["/", "/RPC2", "/json", "/anything/else", "http://h/", "/?a=b", "/%52PC2", "/cl", "http://h"]
)
async def test_xml_calls_are_taken_on_every_path_that_nobody_else_has(edge: Running, path: str) -> None:
    assert (await (await edge.client()).ask(post(call("test.echo", "s", "x"), path))).value == "x"


@pytest.mark.parametrize("path", ["/jsonrpc", "/jsonrpc?x=y", "/%6asonrpc", "/jsonrpcfoo"])
async def test_json_calls_have_their_path(edge: Running, path: str) -> None:
    body = json.dumps({"jsonrpc": "2.0", "method": "test.add", "params": ["s", 2**53, 1], "id": 7}).encode()
    reply = await (await edge.client()).ask(post(body, path))
    assert reply["content-type"] == "application/json"
    assert json.loads(reply.body) == {"jsonrpc": "2.0", "result": 2**53 + 1, "id": 7}


async def test_failures_are_answers(edge: Running) -> None:
    client = await edge.client()
    for method, description in [
        ("VM.frob", ["MESSAGE_METHOD_UNKNOWN", "VM.frob"]),
        ("test.bug", ["INTERNAL_ERROR", "KeyError: 'oops'"]),
    ]:
        reply = await client.ask(post(call(method, "s")))
        assert reply.status == 200
        answer = xmlrpc.client.loads(reply.body)[0][0]
        assert answer == {"Status": "Failure", "ErrorDescription": description}
    json_reply = await client.ask(post(b'{"method":"test.emergency","params":[],"id":3}', "/jsonrpc"))
    assert json.loads(json_reply.body) == {"jsonrpc": "2.0", "error": ["HOST_STILL_BOOTING"], "id": 0}


async def test_list_methods_has_no_status(edge: Running) -> None:
    reply = await (await edge.client()).ask(post(call("system.listMethods")))
    assert xmlrpc.client.loads(reply.body)[0] == (["a.b"],)


async def test_the_coordinators_thumbprint_is_told_to_who_asks(edge: Running) -> None:
    client = await edge.client()
    asks = "x-xenapi-request-host-certificate-thumbprint: sha-256:master\r\n"
    reply = await client.ask(post(call("test.slave", "s"), headers=asks))
    assert reply["x-xenapi-response-host-certificate-thumbprint"] == "abcd"
    silent = await client.ask(post(call("test.slave", "s")))
    assert all("thumbprint" not in name for name, _ in silent.headers)


async def test_a_call_tells_who_makes_it(edge: Running) -> None:
    headers = (
        "User-Agent: a/1 b/2\r\norIGinator: o\r\ntask-id: t\r\nsubtask-of: p\r\ntraceparent: tp\r\n"
        "x-http-other-config-dbg: d\r\nCookie: session_id=ignored\r\n"
    )
    await (await edge.client()).ask(post(call("test.echo", "s", "x"), headers=headers))
    caller = edge.dispatcher.calls[0][0]
    assert (caller.user_agent, caller.originator, caller.task, caller.subtask_of) == ("a/1 b/2", "o", "t", "p")
    assert (caller.traceparent, caller.host_header, caller.other_config) == ("tp", "h", {"dbg": "d"})


async def test_what_is_not_xml_or_json_is_a_page_and_the_end(edge: Running) -> None:
    for path, body in [("/", b"<methodCall>"), ("/", b""), ("/jsonrpc", b"{"), ("/jsonrpc", b"[]")]:
        client = await edge.client()
        reply = await client.ask(post(body, path))
        assert reply.line == "HTTP/1.1 500 Internal Error"
        assert [name for name, _ in reply.headers] == ["content-length", "content-type", "connection", "cache-control"]
        assert reply["content-type"] == "text/html"
        assert await client.at_end()


async def test_the_dispatcher_can_refuse_in_terms_of_http(edge: Running) -> None:
    reply = await (await edge.client()).ask(post(call("test.refused")))
    assert (reply.status, b"no such thing" in reply.body) == (500, True)


async def test_requests_sent_ahead_are_answered_in_order(edge: Running) -> None:
    client = await edge.client()
    requests = [post(call("test.echo", "s", str(n))) for n in range(20)]
    requests.insert(3, post(call("test.work", "s")))
    await client.send(b"\r\n" + b"".join(requests))
    assert [(await client.reply()).value for _ in range(3)] == ["0", "1", "2"]
    await edge.dispatcher.waiting.wait()
    assert len(edge.dispatcher.calls) == 4, "one call at a time on one connection"
    edge.dispatcher.gate.set()
    assert (await client.reply()).value == "done"
    assert [(await client.reply()).value for _ in range(17)] == [str(n) for n in range(3, 20)]


async def test_a_request_may_come_byte_by_byte(edge: Running) -> None:
    client = await edge.client()
    for _ in range(2):
        for byte in post(call("test.echo", "s", "x")):
            await client.send(bytes([byte]))
        assert (await client.reply()).value == "x"


async def test_much_sent_ahead_waits_in_the_clients_socket(edge: Running) -> None:
    client = await edge.client()
    await client.send(post(call("test.work", "s")))
    await edge.dispatcher.waiting.wait()
    many = [post(call("test.echo", "s", "y" * 1000)) for _ in range(2000)]
    sending = asyncio.create_task(client.send(b"".join(many)))
    edge.dispatcher.gate.set()
    assert (await client.reply()).value == "done"
    for _ in many:
        assert (await client.reply()).value == "y" * 1000
    await sending


async def test_a_client_that_does_not_read_holds_only_its_own_answers(edge: Running) -> None:
    slow = await edge.client()
    sending = asyncio.create_task(slow.send(post(call("test.large", "s", "200000")) * 200))
    other = await edge.client()
    for _ in range(5):
        assert (await other.ask(post(call("test.echo", "s", "x")))).value == "x"
    asked = len([method for _, method, _ in edge.dispatcher.calls if method == "test.large"])
    assert asked < 200, "no more answers are made than the client takes"
    for _ in range(200):
        assert len((await slow.reply()).value) == 200000
    await sending


async def test_a_waiting_call_ends_when_its_client_goes(edge: Running) -> None:
    client = await edge.client()
    await client.send(post(call("test.wait", "s")))
    await edge.dispatcher.waiting.wait()
    client.close()
    async with asyncio.timeout(30):
        await edge.dispatcher.cancelled.wait()
    assert edge.edge.statistics.abandoned == 1


async def test_other_calls_run_to_their_end_when_their_client_goes(edge: Running) -> None:
    client = await edge.client()
    await client.send(post(call("test.work", "s")))
    await edge.dispatcher.waiting.wait()
    client.close()
    edge.dispatcher.gate.set()
    async with asyncio.timeout(30):
        await edge.dispatcher.finished.wait()
    await edge.until(lambda: not edge.edge.connections)
    assert not edge.dispatcher.cancelled.is_set()


async def test_a_client_may_close_its_half_and_still_read(edge: Running) -> None:
    client = await edge.client()
    await client.send(post(call("test.late", "s")))
    await edge.dispatcher.waiting.wait()
    client.writer.write_eof()
    edge.dispatcher.gate.set()
    assert b"LATE" in (await client.reply()).body
    assert await client.at_end()


@pytest.mark.parametrize("sent", [b"", b"POST / HT", post(b"x" * 100)[:-50]])
async def test_a_client_that_goes_in_the_middle_leaves_nothing_behind(edge: Running, sent: bytes) -> None:
    client = await edge.client()
    await client.send(sent)
    client.close()
    await edge.until(lambda: edge.edge.statistics.accepted == 1 and not edge.edge.connections)
    assert edge.edge.statistics.open == 0
    assert not edge.dispatcher.calls


async def test_two_hundred_clients_at_once_are_served(edge: Running) -> None:
    async def one(number: int) -> None:
        client = await edge.client(Kind.TLS if number % 20 == 0 else Kind.PLAIN)
        for turn in range(3):
            assert (await client.ask(post(call("test.echo", "s", f"{number}.{turn}")))).value == f"{number}.{turn}"

    await asyncio.gather(*(one(number) for number in range(200)))
    assert edge.edge.statistics.open == 200
    assert edge.edge.statistics.calls["xml"] == 600


async def test_stopping_lets_calls_finish_and_closes_the_idle(edge: Running) -> None:
    idle, busy = await edge.client(), await edge.client()
    await idle.ask(post(call("test.echo", "s", "x")))
    await busy.send(post(call("test.work", "s")))
    await edge.dispatcher.waiting.wait()
    stopping = asyncio.create_task(edge.edge.close(timeout=5))
    assert await idle.at_end()
    edge.dispatcher.gate.set()
    assert (await busy.reply()).value == "done"
    assert await busy.at_end()
    await stopping
    assert not edge.socket.exists()


async def test_stopping_does_not_wait_for_ever(edge: Running) -> None:
    client = await edge.client()
    await client.send(post(call("test.work", "s")))
    await edge.dispatcher.waiting.wait()
    await edge.edge.close(timeout=0.05)
    assert edge.dispatcher.cancelled.is_set()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await client.reply()
