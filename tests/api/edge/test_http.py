"""Requests that are not calls, and bytes that are not requests."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from services.api.edge.endpoint import Kind
from services.api.edge.handlers import HANDLERS, Missing, Runs
from services.api.reference.site import Page, Site
from tests.api.edge.conftest import Running, Start
from tests.api.edge.fakes import call, post

GET = "GET {} HTTP/1.1\r\nHost: h\r\n{}\r\n"


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 501 Method not implemented"),
        ("DELETE / HTTP/1.1\r\n\r\n", "HTTP/1.1 501 Method not implemented"),
        ("TRACE / HTTP/1.0\r\n\r\n", "HTTP/1.0 501 Method not implemented"),
        ("PUT /nothing HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        ("CONNECT /nothing HTTP/1.1\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        ("OPTIONS * HTTP/1.1\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        ("GET /nothing/here HTTP/1.1\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        ("GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        ("GET / x HTTP/1.1\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("POST / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("POST / HTTP/1.1\r\nContent-Length: 400000\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("POST /cli HTTP/1.0\r\nContent-Length: 204801\r\n\r\n", "HTTP/1.0 500 Internal Error"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 500 Internal Error"),
        ("GET / HTTP/1.1\r\nA: " + "x" * 1100 + "\r\n\r\n", "HTTP/1.1 431 Request Header Fields Too Large"),
        ("GET /" + "x" * 1100, "HTTP/1.1 431 Request Header Fields Too Large"),
    ],
)
async def test_what_cannot_be_served_gets_a_page_and_the_end(edge: Running, request_: str, line: str) -> None:
    client = await edge.client()
    reply = await client.ask(request_)
    assert reply.line == line
    assert (reply["content-type"], reply["connection"]) == ("text/html", "close")
    assert reply.body.startswith(b"<html>")
    assert await client.at_end()
    client.close()
    await edge.until(lambda: not edge.edge.connections)


async def test_an_error_reaches_a_client_that_is_still_sending(edge: Running) -> None:
    for kind in (Kind.PLAIN, Kind.TLS):
        client = await edge.client(kind)
        await client.send(post(b"x" * 400_000))
        assert (await client.reply()).status == 500


async def test_the_largest_body_is_accepted(edge: Running) -> None:
    body = call("test.echo", "s", "x")
    client = await edge.client()
    assert (await client.ask(post(body + b" " * (300 * 1024 - len(body))))).value == "x"
    assert (await client.ask(post(body + b" " * (300 * 1024 - len(body) + 1)))).status == 500


async def test_longer_headers_are_accepted_where_browsers_and_root_come_from(edge: Running) -> None:
    headers = f"A: {'x' * 9000}\r\n"
    for kind, size in ((Kind.TLS, 1), (Kind.UNIX, 20)):
        client = await edge.client(kind)
        assert (await client.ask(post(call("test.echo", "s", "x"), headers=headers * size))).value == "x"


@pytest.mark.parametrize("sent", ["", "POST / HT", "GET /\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"])
async def test_a_first_request_that_does_not_come_in_time_is_given_up(quick: Running, sent: str) -> None:
    client = await quick.client()
    reply = await client.ask(sent)
    assert reply.line == "HTTP/1.1 408 Request Timeout"
    assert await client.at_end()


async def test_a_first_request_that_trickles_in_is_given_up_too(quick: Running) -> None:
    client = await quick.client()

    async def trickle() -> None:
        while True:
            await client.send("x")
            await asyncio.sleep(0.05)

    task = asyncio.create_task(trickle())
    assert (await client.reply()).status == 408
    task.cancel()


async def test_an_idle_connection_stays_once_it_has_been_used(quick: Running) -> None:
    client = await quick.client()
    await client.ask(post(call("test.echo", "s", "x")))
    await asyncio.sleep(0.5)  # the point is the time that passes
    assert (await client.ask(post(call("test.echo", "s", "y")))).value == "y"
    await client.send("POST")
    assert (await client.reply()).status == 408


async def test_browsers_may_call_from_other_sites(edge: Running) -> None:
    client = await edge.client()
    plain = await client.ask("OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert plain.headers == [
        ("content-length", "0"),
        ("connection", "keep-alive"),
        ("cache-control", "no-cache, no-store"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Headers", "X-Requested-With"),
        ("Access-Control-Allow-Methods", "PUT"),
    ]
    asked = await client.ask(
        "OPTIONS /jsonrpc HTTP/1.1\r\nAccess-Control-Request-Headers: content-type, x-a\r\nOrigin: http://o\r\n\r\n"
    )
    assert asked["access-control-allow-headers"] == "content-type, x-a, X-Requested-With"
    old = await client.ask("OPTIONS / HTTP/1.0\r\n\r\n")
    assert (old.line, old["connection"]) == ("HTTP/1.0 200 OK", "close")


# ---- handlers


async def test_a_handler_wants_a_login_in_its_own_name(edge: Running) -> None:
    for extra in ("", "Authorization: Basic bm9ib2R5Ong=\r\n", "Cookie: session_id=bad\r\n"):
        client = await edge.client()
        reply = await client.ask(GET.format("/export", extra))
        assert reply.line == "HTTP/1.1 401 Unauthorised"
        assert reply["www-authenticate"] == 'Basic realm="get_export"'
        assert await client.at_end()


async def test_only_basic_logins_are_known(edge: Running) -> None:
    for value in ("Bearer x", "Basic %%%"):
        reply = await (await edge.client()).ask(GET.format("/export", f"Authorization: {value}\r\n"))
        assert reply.status == 500


@pytest.mark.parametrize(
    ("path", "extra", "kind"),
    [
        ("/host_backup?session_id=good", "", Kind.PLAIN),
        ("/host_backup?session_id=bad", "Cookie: a=b; session_id=good\r\n", Kind.PLAIN),
        ("/host_backup", "Cookie: session%5fid=good&x=y\r\n", Kind.PLAIN),
        ("/host_backup?pool_secret=pool", "", Kind.PLAIN),
        ("/host_backup", "Authorization: Basic cm9vdDpzZWNyZXQ=\r\n", Kind.TLS),
        ("/host_backup", "", Kind.UNIX),
    ],
)
async def test_each_proof_of_identity_opens_a_handler(edge: Running, path: str, extra: str, kind: Kind) -> None:
    reply = await (await edge.client(kind)).ask(GET.format(path, extra))
    assert (reply.status, edge.authenticator.ended) == (501, 1)
    assert edge.authenticator.log[0][1] == "http/get_host_backup"


async def test_a_session_without_the_permission_is_forbidden(edge: Running) -> None:
    reply = await (await edge.client()).ask(GET.format("/host_backup?session_id=weak", ""))
    assert reply.status == 403
    assert b"RBAC_PERMISSION_DENIED: [ http/get_host_backup; no ]" in reply.body


async def test_missing_arguments_are_a_bare_400(edge: Running) -> None:
    for path in ("/blob", "/sr_rrd?session_id=good", "/rrd_updates?session_id=good"):
        client = await edge.client()
        reply = await client.ask(GET.format(path, ""))
        assert reply.line == "HTTP/1.1 400 Bad Request"
        assert reply.headers == [("connection", "close"), ("cache-control", "no-cache, no-store")]
        assert reply.body == b""


async def test_every_row_without_a_handler_says_why(edge: Running) -> None:
    for row in HANDLERS:
        if not isinstance(row.runs, Missing):
            continue
        arguments = "&".join(f"{group[0]}=x" for group in row.required)
        client = await edge.client(Kind.UNIX)
        reply = await client.ask(f"{row.method} {row.path}?{arguments} HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert (row.name, reply.status) == (row.name, 501)
        assert row.runs.reason.encode() in reply.body


async def test_routing_takes_the_longest_prefix_of_the_path_as_text(edge: Running) -> None:
    realms = {
        "/exportfoo": "get_export",
        "/export_metadata": "get_export_metadata",
        "/services/SM/x": "get_services_sm",
        "/services/other": "get_services",
        "/host_rrds": "get_host_rrds",
        "/sync_config_files/1": "get_config_sync",
        "/repository/enabled": "get_enabled_repository",
        "/console": "connect_console_ws",
    }
    for path, realm in realms.items():
        reply = await (await edge.client()).ask(GET.format(path, ""))
        assert reply["www-authenticate"] == f'Basic realm="{realm}"'


async def test_members_lack_the_coordinators_paths(edge: Running) -> None:
    edge.coordinator = False
    assert (await (await edge.client(Kind.TLS)).ask(GET.format("/updates", ""))).status == 404
    body = call("test.echo", "s", "x")
    assert (await (await edge.client()).ask(post(body, "/remote_db_access"))).value == "x"


def test_the_table_has_one_row_for_each_path_and_method() -> None:
    assert len({(row.method, row.path) for row in HANDLERS}) == len(HANDLERS)
    assert all(row.role in ROLES for row in HANDLERS)
    assert all(row.body for row in HANDLERS if row.runs in (Runs.XMLRPC, Runs.JSONRPC, Runs.CLI))


ROLES = {"", "local root", "pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator", "read-only"}


# ---- pages


async def test_health_follows_the_service(edge: Running) -> None:
    for ready, status in ((True, 200), (False, 503)):
        edge.facts.ready = ready
        client = await edge.client()
        reply = await client.ask(GET.format("/health", ""))
        assert reply.status == status
        assert json.loads(reply.body)["host"] == "host-1"
        assert await client.at_end()


async def test_counters_are_there_for_prometheus(edge: Running) -> None:
    reply = await (await edge.client(Kind.TLS)).ask(GET.format("/metrics", ""))
    assert reply.body == b"a_counter 1\n"
    assert {metric.name for metric in edge.edge.statistics.collect()} >= {"xapi_http_calls", "xapi_http_connections"}


async def test_the_handler_table_is_documented(edge: Running) -> None:
    reply = await (await edge.client()).ask(GET.format("/openapi.json", ""))
    paths = json.loads(reply.body)["paths"]
    assert paths["/export"]["get"]["operationId"] == "get_export"
    assert "501" in paths["/import"]["put"]["responses"]
    assert paths["/jsonrpc"]["post"]["operationId"] == "post_jsonrpc"


async def test_the_reference_is_served_to_browsers(edge: Running) -> None:
    moved = await (await edge.client()).ask(GET.format("/docs", ""))
    assert (moved.status, moved["location"]) == (307, "/docs/index.html")
    page = await (await edge.client()).ask(GET.format("/docs/class-VM.html", ""))
    assert (page.status, page["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'id="message-start"' in page.body
    assert (await (await edge.client()).ask(GET.format("/docs/../../site.py", ""))).status == 404
    assert (await (await edge.client()).ask(GET.format("/docs/nothing", ""))).status == 404


async def test_pages_of_the_reference_are_made_beside_the_loop(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def page(site: Site, path: str) -> Page:
        threads.append(threading.current_thread())
        return Page(b"made", "text/plain")

    monkeypatch.setattr(Site, "page", page)
    assert (await (await edge.client()).ask(GET.format("/docs/index.html", ""))).body == b"made"
    assert threads
    assert threading.main_thread() not in threads


async def test_web_pages_are_served_over_tls_only(start: Start, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("hello")
    (tmp_path / "secret").write_text("secret")
    edge = await start(site=site)
    assert (await (await edge.client()).ask(GET.format("/", ""))).status == 403
    assert (await (await edge.client(Kind.TLS)).ask(GET.format("/", ""))).body == b"hello"
    assert (await (await edge.client(Kind.TLS)).ask(GET.format("/../secret", ""))).status == 404
    assert (await (await edge.client(Kind.TLS)).ask(GET.format("/absent", ""))).status == 404


async def test_there_are_no_pages_without_a_site(edge: Running) -> None:
    assert (await (await edge.client(Kind.TLS)).ask(GET.format("/", ""))).status == 404
