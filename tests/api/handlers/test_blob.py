"""Blobs: their rows by calls, their content by HTTP."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from services.api.edge.endpoint import Kind
from services.api.edge.stream import Stream
from tests.api.edge.fakes import Client as Connection
from tests.api.handlers.conftest import Site

MIB = 1024 * 1024
UNKNOWN = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"


async def is_cut_off(connection: Connection) -> bool:
    """Whether the connection is reset, rather than ended."""
    try:
        while await connection.reader.read(MIB):
            pass
    except ConnectionResetError:
        return True
    return False


def folder(site: Site) -> Path:
    return site.pool.folder / "api-host0" / "blobs"


async def new(site: Site, public: bool = False, mime_type: str = "text/plain") -> str:
    return str(await site.client.call("blob.create", mime_type, public))


async def test_a_new_blob_is_empty_and_has_nothing_to_read(site: Site) -> None:
    blob = await new(site, mime_type="")
    row = site.pool.row("blob", blob)
    assert (row["size"], row["public"], row["mime_type"], row["name_label"]) == (
        0,
        False,
        "application/octet-stream",
        "",
    )
    reply = await site.ask("GET", f"/blob?ref={blob}")
    assert (reply.line, reply.body) == ("HTTP/1.1 404 Not Found", b"")


async def test_what_was_put_can_be_read(site: Site) -> None:
    blob = await new(site)
    uuid = site.pool.row("blob", blob)["uuid"]
    put = await site.ask("PUT", f"/blob?ref={blob}", b"hello")
    assert (put.line, put.body, put["connection"]) == ("HTTP/1.1 200 OK", b"", "keep-alive")
    assert site.pool.row("blob", blob)["size"] == 5  # when the connection ends
    for named in (f"ref={blob}", f"uuid={uuid}"):
        got = await site.ask("GET", f"/blob?{named}")
        assert (got.body, got["content-type"], got["content-length"], got["connection"]) == (
            b"hello", "text/plain", "5", "close",
        )  # fmt: skip
    await site.ask("PUT", f"/blob?uuid={uuid}", b"")
    assert site.pool.row("blob", blob)["size"] == 0
    assert (await site.ask("GET", f"/blob?ref={blob}")).body == b""
    assert [path.name for path in folder(site).iterdir()] == [uuid]
    assert site.tasks() == []


async def test_content_of_many_megabytes_survives_the_way(site: Site) -> None:
    blob, content = await new(site), os.urandom(3_000_001)
    for kind in (Kind.PLAIN, Kind.TLS, Kind.UNIX):
        await site.ask("PUT", f"/blob?ref={blob}", content, kind=kind)
        assert (await site.ask("GET", f"/blob?ref={blob}", kind=kind)).body == content


async def test_public_blobs_can_be_read_and_not_written_without_login(site: Site) -> None:
    blob = await new(site, public=True)
    await site.ask("PUT", f"/blob?ref={blob}", b"hello")
    assert (await site.ask("GET", f"/blob?ref={blob}", session="")).body == b"hello"
    put = await site.ask("PUT", f"/blob?ref={blob}", b"other", session="")
    assert (put.status, put["www-authenticate"]) == (401, 'Basic realm="put_blob"')
    await site.client.call("blob.set_public", blob, False)
    for session in ("", UNKNOWN):
        got = await site.ask("GET", f"/blob?ref={blob}", session=session)
        assert (got.status, got["www-authenticate"]) == (401, 'Basic realm="Blob handler"')
    assert (await site.ask("GET", f"/blob?ref={blob}", kind=Kind.UNIX, session="")).body == b"hello"


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_blob_must_be_named_and_known(site: Site, method: str) -> None:
    assert (await site.ask(method, "/blob", b"x")).line == "HTTP/1.1 400 Bad Request"
    for named in (f"ref={UNKNOWN}", "uuid=x", "ref=", "uuid="):
        assert (await site.ask(method, f"/blob?{named}", b"x")).line == "HTTP/1.1 404 Not Found"


async def test_content_without_a_length_is_refused(site: Site) -> None:
    blob = await new(site)
    assert (await site.ask("PUT", f"/blob?ref={blob}")).status == 400
    assert (await site.ask("PUT", f"/blob?ref={blob}", headers="Transfer-Encoding: chunked\r\n")).status == 500


async def test_the_tasks_of_clients_are_ended_by_what_happens_to_their_blobs(site: Site) -> None:
    blob = await new(site)
    good, bad = await site.task(), await site.task()
    await site.client.call("task.set_result", good, "kept")
    await site.ask("PUT", f"/blob?ref={blob}&task_id={good}", b"x")
    row = await site.ended(good)
    assert (row["status"], row["result"], row["progress"]) == ("success", "kept", 1.0)
    await site.ask("GET", f"/blob?ref={UNKNOWN}&task_id={bad}")
    row = await site.ended(bad)
    assert (row["status"], row["error_info"]) == ("failure", ["HANDLE_INVALID", "blob", UNKNOWN])


async def test_content_that_is_cut_short_changes_nothing(site: Site) -> None:
    blob, task = await new(site), await site.task()
    await site.ask("PUT", f"/blob?ref={blob}", b"old")
    connection = await site.connect()
    headers = "Content-Length: 1000000\r\n"
    await connection.send(site.request("PUT", f"/blob?ref={blob}&task_id={task}", headers=headers) + b"x" * 500_000)
    connection.writer.write_eof()
    row = await site.ended(task)
    assert (row["status"], row["error_info"][0]) == ("failure", "INTERNAL_ERROR")
    assert (await site.ask("GET", f"/blob?ref={blob}")).body == b"old"
    assert len(list(folder(site).iterdir())) == 1


async def test_a_disk_that_becomes_full_keeps_the_old_content_and_tells_the_task(site: Site, monkeypatch: Any) -> None:
    blob, task = await new(site), await site.task()
    await site.ask("PUT", f"/blob?ref={blob}", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("services.api.blob_files.os.fsync", full)
    connection = await site.connect()
    await connection.send(site.request("PUT", f"/blob?ref={blob}", b"new"))
    assert await is_cut_off(connection)
    assert (await site.ask("PUT", f"/blob?ref={blob}&task_id={task}", b"new")).status == 200  # the task tells
    row = await site.ended(task)
    assert (row["error_info"][0], "No space left" in row["error_info"][1]) == ("INTERNAL_ERROR", True)
    assert (await site.ask("GET", f"/blob?ref={blob}")).body == b"old"
    assert len(list(folder(site).iterdir())) == 1


async def test_what_leaves_no_room_on_the_disk_is_refused_before_it_is_sent(site: Site) -> None:
    blob, task = await new(site), await site.task()
    headers = f"Content-Length: {2**62}\r\n"
    reply = await site.ask("PUT", f"/blob?ref={blob}&task_id={task}", headers=headers)
    assert (reply.status, b"No space left" in reply.body) == (500, True)
    assert (await site.ended(task))["error_info"][0] == "INTERNAL_ERROR"


async def test_a_blob_that_is_destroyed_takes_its_content_along(site: Site) -> None:
    host = site.pool.host_ref(0)
    blob = await site.client.call("host.create_new_blob", host, "logo", "image/png", True)
    assert site.pool.row("host", host)["blobs"] == {"logo": blob}
    assert (await site.client.refusal("host.create_new_blob", host, "logo", "x"))[0] == "MAP_DUPLICATE_KEY"
    await site.ask("PUT", f"/blob?ref={blob}", b"png")
    uuid = site.pool.row("blob", blob)["uuid"]
    await site.client.call("blob.destroy", blob)
    assert site.pool.row("host", host)["blobs"] == {}
    while (folder(site) / uuid).exists():  # noqa: ASYNC110 (files have no events)
        await asyncio.sleep(0.01)
    assert await site.client.refusal("blob.destroy", blob) == ["HANDLE_INVALID", "blob", blob]
    assert (await site.client.refusal("host.create_new_blob", UNKNOWN, "logo", "x")) == [
        "HANDLE_INVALID",
        "host",
        UNKNOWN,
    ]


async def test_every_class_with_blobs_makes_them(site: Site) -> None:
    for cls in ("VM", "host", "pool", "network", "SR"):
        [owner, *_] = site.pool.store.rows(cls)
        blob = await site.client.call(f"{cls}.create_new_blob", owner, "b", "")
        assert site.pool.row(cls, owner)["blobs"] == {"b": blob}


async def test_a_start_puts_files_and_rows_in_order(site: Site) -> None:
    blob = await new(site)
    await site.ask("PUT", f"/blob?ref={blob}", b"hello")
    uuid = site.pool.row("blob", blob)["uuid"]
    orphan = "11111111-2222-4333-8444-555555555555"
    (folder(site) / orphan).write_bytes(b"x")
    (folder(site) / f"{uuid}.0123456789abcdef.new").write_bytes(b"x")
    (folder(site) / uuid).write_bytes(b"a new content, whose size was not written")
    await site.pool.kill_api()
    await site.pool.start_api()
    assert [path.name for path in folder(site).iterdir()] == [uuid]
    assert site.pool.row("blob", blob)["size"] == 41


async def test_a_reader_that_stops_reading_stops_the_file_being_read(site: Site, monkeypatch: Any) -> None:
    blob, task = await new(site), await site.task()
    await site.ask("PUT", f"/blob?ref={blob}", bytes(64 * MIB))
    sent = 0
    write = Stream.write

    async def counted(stream: Stream, data: bytes) -> None:
        nonlocal sent
        sent += len(data)
        await write(stream, data)

    monkeypatch.setattr(Stream, "write", counted)
    connection = await site.connect(limit=4096)
    await connection.send(site.request("GET", f"/blob?ref={blob}&task_id={task}"))
    await connection.reader.readuntil(b"\r\n\r\n")
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.2)
    assert sent < 32 * MIB  # what the sockets hold
    await site.client.call("task.cancel", task)
    assert (await site.ended(task))["status"] == "cancelled"
    assert await is_cut_off(connection)
