"""Logs, status reports, the password hash: what helps people and hosts to look after a host."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from lxml import etree

from services.api import archive
from services.api.archive import Member
from services.api.edge.endpoint import Kind
from shared import passwords
from tests.api.handlers.conftest import Site


def logs(site: Site) -> Path:
    return site.pool.folder / "logs"


@pytest.fixture
def _logs(site: Site) -> None:
    folder = logs(site)
    folder.mkdir(exist_ok=True)
    (folder / "api.log").write_text("a line\n" * 100_000)
    (folder / "db.log.1").write_text("old\n")
    (folder / "pool-secret").write_text("secret")
    (folder / "shadow.log").symlink_to("/etc/shadow")
    (folder / "deep.log").mkdir()


@pytest.mark.usefixtures("_logs")
async def test_logs_come_as_an_archive_of_log_files_and_nothing_else(site: Site) -> None:
    task = await site.task()
    reply = await site.ask("GET", f"/host_logs_download?task_id={task}", kind=Kind.TLS)
    assert (reply.line, reply["connection"]) == ("HTTP/1.1 200 OK", "close")
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as found:
        assert sorted(found.getnames()) == ["api.log", "db.log.1"]
        content = found.extractfile("api.log")
        assert content is not None
        assert content.read() == b"a line\n" * 100_000
    assert (await site.ended(task))["status"] == "success"


@pytest.mark.usefixtures("_logs")
@pytest.mark.parametrize(
    ("output", "content_type"),
    [("", "appliation/x-tar"), ("tar.bz2", "application/x-bzip2"), ("zip", "application/zip")],
)
async def test_a_status_report_tells_how_the_host_is_and_no_secrets(site: Site, output: str, content_type: str) -> None:
    site.pool.set_password("root", "very secret")
    reply = await site.ask("GET", f"/system-status?output={output}" if output else "/system-status")
    assert (reply.status, reply["content-type"]) == (200, content_type), reply.body
    files = unpacked(reply.body)
    assert files.keys() == {
        "logs/api.log", "logs/db.log.1", "database", "services", "versions", "machine", "processes",
    }  # fmt: skip
    assert b"host: 1\n" in files["database"]
    assert b"db (pool): ready" in files["services"]
    assert b"vm (host): " in files["services"]
    for secret in (site.client.session, "very secret", passwords.read(site.pool.folder / "passwords")["root"]):
        assert not any(secret.encode() in content for content in files.values())
    assert site.tasks() == []


def unpacked(data: bytes) -> dict[str, bytes]:
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            return {name: zipped.read(name) for name in zipped.namelist()}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {one.name: file.read() for one in tar if (file := tar.extractfile(one)) is not None}


async def test_parts_of_a_report_can_be_chosen_from_those_there_are(site: Site) -> None:
    told = await site.client.call("host.get_system_status_capabilities", site.pool.host_ref(0))
    listed = await site.ask("GET", "/system-status?list")
    assert listed["content-type"] == "text/xml"
    keys = [one.get("key") for one in etree.fromstring(listed.body)]
    assert keys == [one.get("key") for one in etree.fromstring(told.encode())]
    assert "xapi-database" in keys
    reply = await site.ask("GET", "/system-status?entries=xapi-database,versions,unheard-of&output=zip")
    assert unpacked(reply.body).keys() == {"database", "versions"}
    refused = await site.ask("GET", "/system-status?output=rar")
    assert (refused.status, b"SYSTEM_STATUS_RETRIEVAL_FAILED" in refused.body) == (500, True)


async def test_the_password_hash_is_for_those_who_ask_for_version_2(site: Site) -> None:
    site.pool.set_password("root", "secret")
    reply = await site.ask("GET", "/sync_config_files/2")
    assert passwords.verify("secret", json.loads(reply.body)["password"])
    for version in ("1", "", "x", "-2", "2/../3", "٣"):
        assert (await site.ask("GET", f"/sync_config_files/{version}")).status == 404


async def test_a_log_that_is_emptied_while_it_is_sent_does_not_spoil_the_archive(tmp_path: Path) -> None:
    big, gone = tmp_path / "big", tmp_path / "gone"
    big.write_bytes(b"x" * 3_000_000)
    sent = bytearray()

    async def send(data: bytes) -> None:
        big.write_bytes(b"")
        sent.extend(data)

    await archive.send("tar", [Member("big", big), Member("gone", gone), Member("end", b"end")], send)
    files = unpacked(bytes(sent))
    assert (len(files["big"]), files["end"], "gone" in files) == (3_000_000, b"end", False)


async def test_an_archive_that_nobody_takes_is_given_up(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 3_000_000)
    pieces: list[int] = []
    first = asyncio.Event()

    async def send(data: bytes) -> None:
        pieces.append(len(data))
        first.set()
        await asyncio.sleep(0)

    work = asyncio.create_task(archive.send("tar", [Member("big", big)] * 100, send))
    await first.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    seen = len(pieces)
    await archive.send("tar", [Member("end", b"end")], _ignore)  # the threads are free
    assert len(pieces) <= seen + 1


async def _ignore(data: bytes) -> None:
    pass
