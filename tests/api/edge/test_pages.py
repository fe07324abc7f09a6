"""The host's web site: what of it is served, over what, and never anything beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.api.edge.endpoint import Kind
from services.api.edge.handlers import HANDLERS, Missing
from tests.api.edge.conftest import Running, Start

GET = "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("hello")
    (site / "sub" / "index.html").write_text("sub")
    (site / "sub" / "page.txt").write_text("page")
    (site / "out").symlink_to(tmp_path / "secret")
    (site / "up").symlink_to(tmp_path)
    (site / "in").symlink_to(site / "sub" / "page.txt")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "site-next-door").mkdir()
    (tmp_path / "site-next-door" / "secret").write_text("secret")
    return site


async def test_folders_are_their_index_and_files_themselves(start: Start, folder: Path) -> None:
    edge = await start(site=folder)
    for path, body in (
        ("/", b"hello"),
        ("/sub/", b"sub"),
        ("/sub/page.txt", b"page"),
        ("/sub/../index.html", b"hello"),
    ):
        reply = await (await edge.client(Kind.TLS)).ask(GET.format(path, "h"))
        assert (path, reply.status, reply.body) == (path, 200, body)


BESIDE = [
    "/../secret",
    "/sub/../../secret",
    "/%2e%2e/secret",
    "/%2E%2E%2Fsecret",
    "/..%2fsecret",
    "/%252e%252e/secret",
    "/..\\secret",
    "/%5c..%5csecret",
    "/..%00/secret",
    "/secret%00.html",
    "//etc/passwd",
    "/%2fetc/passwd",
    "/out",
    "/up/secret",
    "/../site-next-door/secret",
    "/....//secret",
    "/sub/%c0%ae%c0%ae/secret",
    "http://h/../secret",
]


async def test_nothing_beside_the_site_is_served(start: Start, folder: Path) -> None:
    edge = await start(site=folder)
    for path in BESIDE:
        reply = await (await edge.client(Kind.TLS)).ask(GET.format(path, "h"))
        assert (path, reply.status in (400, 404)) == (path, True)
        assert b"secret" not in reply.body.replace(b"/secret", b"")
        assert b"root:" not in reply.body


async def test_over_plain_http_pages_are_sent_to_https_where_that_is_wanted(start: Start, folder: Path) -> None:
    lenient = await start(site=folder, https_only=False)
    for host, location in (
        ("host.example", "https://host.example/a%20b?c=d"),
        ("host.example:80", "https://host.example/a%20b?c=d"),
        ("[::1]:8080", "https://[::1]/a%20b?c=d"),
    ):
        reply = await (await lenient.client()).ask(GET.format("/a%20b?c=d", host))
        assert (reply.line, reply["location"]) == ("HTTP/1.1 301 Moved Permanently", location)
        assert (reply.body, reply["connection"]) == (b"", "close")
    for host in ("", "evil.example/x", "a b", "user@evil.example"):
        assert (await (await lenient.client()).ask(GET.format("/", host))).status == 403


async def test_every_row_of_the_table_is_described_for_programs(edge: Running) -> None:
    reply = await (await edge.client()).ask(GET.format("/openapi.json", "h"))
    paths = json.loads(reply.body)["paths"]
    for row in HANDLERS:
        if row.method == "CONNECT" or row.name in ("get_openapi", "get_docs", "get_root"):
            continue
        described = paths[row.path][row.method.lower()]
        names = {parameter["name"] for parameter in described["parameters"]} if "parameters" in described else set()
        assert names == {name for group in row.required for name in group} | set(row.optional)
        if row.path not in ("/health", "/metrics"):
            assert described["operationId"] == row.name
            assert ("501" in described["responses"]) == isinstance(row.runs, Missing)
