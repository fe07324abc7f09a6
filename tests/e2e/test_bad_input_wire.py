"""Bytes that are no calls, at every door of a pool: an error and no harm, for the client and for everybody else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import client
from tests.support.pool import PoolUnderTest
from tests.support.rawhttp import Response, connected, exchange, post

pytestmark = pytest.mark.pool

JSON = "/jsonrpc"
BOTH_PORTS = pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])


def call_xml(params: bytes, method: bytes = b"host.get_all") -> bytes:
    return b"<?xml version='1.0'?><methodCall><methodName>%b</methodName><params>%b</params></methodCall>" % (
        method,
        params,
    )


def param(inner: bytes) -> bytes:
    return call_xml(b"<param><value>%b</value></param>" % inner)


def call_json(params: bytes) -> bytes:
    return b'{"jsonrpc": "2.0", "id": 1, "method": "host.get_all", "params": [%b]}' % params


def bomb() -> bytes:
    """A billion letters, in ten steps of ten."""
    names = "abcdefghij"
    steps = "".join(f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in itertools.pairwise(names))
    head = f"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'letter'>{steps}]>"
    return head.encode() + b"<methodCall><methodName>&j;</methodName><params/></methodCall>"


ENTITY = b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>"
XML = {
    "nothing": b"",
    "no XML": b"\xff\xfe\x00 garbage",
    "half of it": b"<methodCall><methodName>host.get_all",
    "another document": b"<html/>",
    "no method": b"<methodCall><params/></methodCall>",
    "two methods": b"<methodCall><methodName>a</methodName><methodName>b</methodName></methodCall>",
    "an entity bomb": bomb(),
    "a file as entity": ENTITY + b"<methodCall><methodName>&e;</methodName><params/></methodCall>",
    "nested arrays": param(b"<array><data><value>" * 3000 + b"</value></data></array>" * 3000),
    "a number that is none": param(b"<int>abc</int>"),
    "a member without name": param(b"<struct><member><value>1</value></member></struct>"),
    "a type nobody knows": param(b"<base64>AAAA</base64>"),
    "a control character": param(b"<string>\x01</string>"),
    "an unknown encoding": b"<?xml version='1.0' encoding='utf-7'?>" + call_xml(b"")[21:],
}
JSON_BODIES = {
    "nothing": b"",
    "no JSON": b"\xff\xfe\x00 garbage",
    "half of it": b'{"method": "host.get_all", "par',
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "a batch": b"[%b]" % call_json(b""),
    "no method": b'{"jsonrpc": "2.0", "id": 1}',
    "an unknown version": b'{"jsonrpc": "3.0", "id": 1, "method": "host.get_all", "params": []}',
    "an id that is no id": b'{"jsonrpc": "2.0", "id": {}, "method": "host.get_all", "params": []}',
    "half a surrogate": call_json(b'"\\ud800"'),
    "arrays, deep": call_json(b"[" * 900 + b"]" * 900),
    "arrays, deeper": call_json(b"[" * 100_000 + b"]" * 100_000),
    "objects, deep": call_json(b'{"a":' * 900 + b"1" + b"}" * 900),
}
REQUESTS = {
    "a negative length": (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n", 500),
    "a length in words": (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: five\r\n\r\n", 500),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", 500),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        500,
    ),
    "no length": (b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", 500),
    "ten gigabytes announced": (post(b"", length=10 << 30), 500),
    "more than any number": (post(b"", length=10**30), 500),
    "a body that is too large": (post(b"x" * 400_000), 500),
    "a length that is too short": (post(b"<methodCall/>", length=3), 500),
    "a long header": (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 2_000_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", 431),
    "an unknown method": (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    "another protocol": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501),
}


@pytest.fixture
def pool(simulator_pool: PoolUnderTest) -> Iterator[PoolUnderTest]:
    """After the test it works for others as before."""
    yield simulator_pool
    with client.logged_in(simulator_pool) as session:
        assert len(session.xenapi.host.get_all()) == 3


def send(pool: PoolUnderTest, request: bytes, *, tls: bool = False) -> Response:
    return exchange(pool.hosts["host1"], pool.plan.https_port if tls else pool.plan.http_port, request, tls=tls)


def assert_harmless(found: Response, status: int = 500) -> None:
    assert found.status == status
    assert b"Traceback" not in found.body
    assert b"root:" not in found.body, "that is /etc/passwd"


@BOTH_PORTS
@pytest.mark.parametrize("body", XML.values(), ids=list(XML))
def test_a_body_that_is_no_xml_call_is_an_error(pool: PoolUnderTest, body: bytes, tls: bool) -> None:
    assert_harmless(send(pool, post(body), tls=tls))


@BOTH_PORTS
@pytest.mark.parametrize("body", JSON_BODIES.values(), ids=list(JSON_BODIES))
def test_a_body_that_is_no_json_call_is_an_error(pool: PoolUnderTest, body: bytes, tls: bool) -> None:
    assert_harmless(send(pool, post(body, JSON), tls=tls))


@BOTH_PORTS
@pytest.mark.parametrize(("request_", "status"), REQUESTS.values(), ids=list(REQUESTS))
def test_a_request_that_is_none_is_an_error(pool: PoolUnderTest, request_: bytes, status: int, tls: bool) -> None:
    assert_harmless(send(pool, request_, tls=tls), status)


@BOTH_PORTS
@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/xapi.js/../../../../etc/passwd",
        "/web/../../../../etc/passwd",
        "/message_logs/../../etc/passwd",
        "/\x00/etc/passwd",
        "http://elsewhere/etc/passwd",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_no_path_leads_to_files_of_the_machine(pool: PoolUnderTest, method: str, path: str, tls: bool) -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    found = send(pool, request.encode(), tls=tls)
    assert found.status in (401, 403, 404, 500, 501)
    assert b"root:" not in found.body


@pytest.mark.parametrize(
    "query", ["", "?uuid=", "?uuid=../../../etc/passwd", "?ref=OpaqueRef:NULL", "?uuid=%00%ff", "?ref=" + "x" * 800]
)
def test_a_console_that_does_not_exist_is_refused(pool: PoolUnderTest, session: Any, query: str) -> None:
    separator = "&" if query else "?"
    path = f"/console{query}{separator}session_id={session._session}"
    assert_harmless(send(pool, f"CONNECT {path} HTTP/1.0\r\n\r\n".encode()), 500)
    assert_harmless(send(pool, f"CONNECT /console{query} HTTP/1.0\r\n\r\n".encode()), 401)
    assert_harmless(send(pool, f"CONNECT /console{query}{separator}session_id=x HTTP/1.0\r\n\r\n".encode()), 401)


def test_a_console_takes_any_bytes(pool: PoolUnderTest, session: Any) -> None:
    api = session.xenapi
    vm = client.provisioned(api, "typed at")
    try:
        api.VM.start(vm, False, False)
        uuid = api.console.get_uuid(api.VM.get_consoles(vm)[0])
        address = api.host.get_address(api.VM.get_resident_on(vm))
        request = f"CONNECT /console?uuid={uuid}&session_id={session._session} HTTP/1.0\r\n\r\n".encode()
        for _ in range(3):
            with connected(address, pool.plan.https_port, tls=True) as console:
                console.sendall(request + bytes(range(256)) * 400)
                assert console.recv(12) == b"HTTP/1.1 200"
        assert api.VM.get_power_state(vm) == "Running"
    finally:
        client.remove(api, vm)


@pytest.fixture
def session(pool: PoolUnderTest) -> Iterator[Any]:
    with client.logged_in(pool) as found:
        yield found
