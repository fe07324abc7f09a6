"""Any bytes to any path: an answer or a closed connection, never a traceback, a hang or a dead process."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.api.edge.handlers import HANDLERS
from shared.datamodel import model
from tests.e2e import client
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.timeout(300)]

STATUSES = {200, 301, 302, 307, 400, 401, 403, 404, 408, 431, 500, 501, 503}
"""Those of the reference, and 307 of `/docs`."""
ANSWER_WITHIN = 20.0
"""Seconds: an incomplete head is given up after ten."""

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "")
"""How many of each kind; new ones with each run. Without it a few hundred, always the same."""

bounded = settings(
    max_examples=int(EXAMPLES or 300),
    deadline=None,
    derandomize=not EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Target:
    """The coordinator's plain port, and what its API process has logged since the tests began."""

    def __init__(self, pool: PoolUnderTest, session: str) -> None:
        parts = urlsplit(pool.url)
        assert parts.hostname is not None
        self.address = (parts.hostname, parts.port or 80)
        self.session = session
        self._pool = pool
        self._pid = pool.pid("api")
        self._logged = len(pool.log("api"))

    def send(self, request: bytes) -> bytes:
        """All that comes back once everything is sent and no more will be."""
        with socket.create_connection(self.address, timeout=ANSWER_WITHIN) as connection:
            answer = bytearray()
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + ANSWER_WITHIN
                while part := connection.recv(65536):
                    answer += part
                    assert time.monotonic() < deadline, f"no end to the answer of {request!r}"
            except (ConnectionResetError, BrokenPipeError):
                pass  # it had seen enough
            except TimeoutError:
                pytest.fail(f"no answer to {request!r}")
            return bytes(answer)

    def check(self, request: bytes) -> None:
        answer = self.send(request)
        if answer.startswith(b"HTTP/"):
            status = int(answer.split(b" ", 2)[1])
            assert status in STATUSES, (request, answer[:500])
            assert b"Traceback" not in answer
            if status == 500:  # the page says why; a Python error is never a reason
                assert not re.search(rb"(Type|Value|Key|Attribute|Index|Assertion|Unicode\w+)Error", answer), (
                    request,
                    answer[:500],
                )

    def check_health(self) -> None:
        """The same process still serves, and nothing surprised it."""
        assert b"200 OK" in self.send(b"GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        assert self._pool.pid("api") == self._pid
        logged = self._pool.log("api")[self._logged :]
        assert "Traceback" not in logged, logged[logged.index("Traceback") - 500 :][:3000]


@pytest.fixture(scope="module")
def target(simulator_pool: PoolUnderTest) -> Iterator[Target]:
    with client.logged_in(simulator_pool) as session:
        found = Target(simulator_pool, session.handle)
        yield found
        found.check_health()


VALID = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-type: text/xml\r\ncontent-length: %d\r\n\r\n%b"
CALL = b"<?xml version='1.0'?><methodCall><methodName>%b</methodName><params>%b</params></methodCall>"


def xml_request(method: bytes, params: bytes, path: bytes = b"/") -> bytes:
    body = CALL % (method, params)
    return VALID.replace(b"POST /", b"POST " + path) % (len(body), body)


@bounded
@given(request=st.binary(max_size=400))
def test_bytes_that_are_no_http(target: Target, request: bytes) -> None:
    target.check(request)


@bounded
@given(data=st.data())
def test_a_call_with_bytes_changed(target: Target, data: st.DataObject) -> None:
    session = f"<param><value>{target.session}</value></param>".encode()
    request = bytearray(xml_request(b"VM.get_all_records", session))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(request) - 1))
        kind = data.draw(st.sampled_from(["set", "insert", "delete", "repeat", "cut"]))
        if kind == "set":
            request[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            request[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del request[at : at + data.draw(st.integers(1, 20))]
        elif kind == "repeat":
            request[at:at] = request[at : at + 40] * data.draw(st.integers(1, 50))
        else:
            del request[at + 1 :]
        if not request:
            return
    target.check(bytes(request))


TOKENS = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30)
PATHS = st.one_of(
    st.sampled_from([row.path for row in HANDLERS]),
    st.tuples(st.sampled_from([row.path for row in HANDLERS]), TOKENS).map("".join),
    st.sampled_from(
        ["*", "//", "/..", "/%2e%2e/%2e%2e/etc/passwd", "/docs/../../etc/passwd", "/\x7f", "http://h/", "/%"]
    ),
    TOKENS,
)
NAMES = {name for row in HANDLERS for group in (*row.required, row.optional) for name in group}
ARGUMENTS = st.dictionaries(
    st.sampled_from(sorted(NAMES | {"session_id", "task_id", "subtask_of"})),
    st.one_of(TOKENS, st.sampled_from(["OpaqueRef:NULL", "true", "-1", "1e999", "%00", "0" * 500])),
    max_size=4,
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-length", "transfer-encoding", "authorization", "cookie", "connection", "task-id",
                         "subtask-of", "upgrade", "sec-websocket-key", "sec-websocket-version", "origin", "host",
                         "expect", "traceparent", "x-http-other-config-a", "x-http-other-config-", "range", "accept"]),
        st.one_of(TOKENS, st.sampled_from(["0", "5", "-1", "99999999999999999999", "chunked", "Basic !!!", "Basic YTpi",
                                           "Bearer x", "session_id=;task_id", "a=b=c; d", "keep-alive, close",
                                           "websocket", "100-continue", "bytes=0-"])),
    ),
    max_size=4,
)  # fmt: skip


@bounded
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "CONNECT", "OPTIONS", "HEAD", "DELETE", "get", "PRI"]),
    path=PATHS,
    arguments=ARGUMENTS,
    headers=HEADERS,
    version=st.sampled_from(["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/9", ""]),
    body=st.binary(max_size=200),
    trusted=st.booleans(),
)
def test_requests_of_any_kind(
    target: Target,
    method: str,
    path: str,
    arguments: dict[str, str],
    headers: list[tuple[str, str]],
    version: str,
    body: bytes,
    trusted: bool,
) -> None:
    """`trusted`: with a session that may do everything, where that changes nothing."""
    if trusted and method == "GET":
        arguments = {**arguments, "session_id": target.session}
    query = "&".join(f"{name}={quote(value, safe='%')}" for name, value in arguments.items())
    line = f"{method} {path}{'?' + query if query else ''} {version}".encode("latin-1").strip()
    lines = [line, *(f"{name}: {value}".encode("latin-1") for name, value in headers)]
    if not any(name == "content-length" for name, _ in headers):
        lines.append(b"content-length: %d" % len(body))
    target.check(b"\r\n".join(lines) + b"\r\n\r\n" + body)


SCALARS = st.one_of(
    st.text(max_size=20).map(lambda text: f"<value>{text}</value>"),
    st.integers().map(lambda number: f"<value><int>{number}</int></value>"),
    st.floats().map(lambda number: f"<value><double>{number}</double></value>"),
    st.sampled_from([
        "<value/>", "<value><nil/></value>", "<value><boolean>true</boolean></value>", "<value><int/></value>",
        "<value><dateTime.iso8601>20250230T99:00:00Z</dateTime.iso8601></value>", "<value><base64>!</base64></value>",
        "<value><struct><member/></struct></value>", "<value><array/></value>", "<value>OpaqueRef:NULL</value>",
    ]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda each: f"<value><array><data>{''.join(each)}</data></array></value>"),
        st.lists(st.tuples(st.text(max_size=6), inner), max_size=4).map(
            lambda members: (
                "<value><struct>"
                + "".join(f"<member><name>{name}</name>{value}</member>" for name, value in members)
                + "</struct></value>"
            )
        ),
    ),
    max_leaves=8,
)


@bounded
@given(
    method=st.sampled_from(sorted(model.messages)),
    values=st.lists(VALUES, max_size=6),
    prefix=st.sampled_from(["", "Async."]),
)
def test_calls_with_any_values(target: Target, method: str, values: list[str], prefix: str) -> None:
    """Without a session: the values are looked at first."""
    params = "".join(f"<param>{value}</param>" for value in ["<value>OpaqueRef:nobody</value>", *values])
    target.check(xml_request(f"{prefix}{method}".encode(), params.encode("utf-8", "surrogatepass")))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=10,
)


@bounded
@given(
    document=st.fixed_dictionaries(
        {},
        optional={
            "jsonrpc": st.one_of(st.just("2.0"), JSON),
            "method": st.one_of(st.sampled_from(sorted(model.messages)), JSON),
            "params": st.one_of(st.lists(JSON, max_size=5), JSON),
            "id": JSON,
        },
    )
)
def test_json_of_any_shape(target: Target, document: Any) -> None:
    body = json.dumps(document).encode()
    target.check(b"POST /jsonrpc HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def bomb() -> bytes:
    """Twenty entities, each ten times the one before."""
    entities = [b'<!ENTITY e%d "%b">' % (n, b"&e%d;" % (n - 1) * 10 if n else b"ha") for n in range(20)]
    return b"<!DOCTYPE a [%b]><methodCall><methodName>&e19;</methodName><params/></methodCall>" % b"".join(entities)


FILE_ENTITY = (
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><methodCall><methodName>&x;</methodName></methodCall>'
)
NESTED = b"<value><array><data>" * 4_000 + b"</data></array></value>" * 4_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<a>" * 50_000, id="open elements"),
        pytest.param(b"<methodCall><params>" + b"<param><value><array><data>" * 3_000, id="open arrays"),
        pytest.param(CALL % (b"VM.get_all", b"<param>%b</param>" % NESTED), id="nested arrays"),
        pytest.param(bomb(), id="entity bomb"),
        pytest.param(FILE_ENTITY, id="file entity"),
    ],
)
def test_xml_made_to_hurt(target: Target, body: bytes) -> None:
    target.check(VALID % (len(body), body))
    assert b"root:" not in target.send(VALID % (len(body), body))
    target.check_health()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 100_000, id="open arrays"),
        pytest.param(b'{"a":' * 50_000, id="open objects"),
        pytest.param(b'{"method":"VM.get_all","params":' + b"[" * 1500 + b"]" * 1500 + b',"id":1}', id="nested arrays"),
    ],
)
def test_json_made_to_hurt(target: Target, body: bytes) -> None:
    target.check(b"POST /jsonrpc HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    target.check_health()
