"""Disks over HTTP: real bytes from a client through the API and a transfer's worker into a disk, and back."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.api.decisions import unfinished_disks
from services.api.edge.endpoint import Kind
from shared.contracts import transfer
from shared.logs import JsonFormatter
from tests.api.handlers.conftest import Site
from tests.api.handlers.real_disks import RealDisks, real_disks
from tests.api.harness import Pool
from tests.storage.support import MIB

SIZE = 3 * MIB


@pytest.fixture
async def disks(pool: Pool, tmp_path: Path) -> AsyncIterator[RealDisks]:
    async with real_disks(pool, tmp_path / "disks") as running:
        yield running


async def new_disk(site: Site, size: int = SIZE) -> tuple[str, str]:
    """Reference and uuid."""
    sr = next(iter(site.pool.store.rows("SR")))
    record = {"name_label": "disk", "SR": sr, "virtual_size": size, "type": "user", "other_config": {}}
    ref = str(await site.client.call("VDI.create", record | {"sharable": False, "read_only": False}))
    return ref, str(site.pool.row("VDI", ref)["uuid"])


def content(size: int = SIZE, seed: int = 1) -> bytes:
    """Data, and holes."""
    parts = random.Random(seed)
    return b"".join(parts.randbytes(65536) if parts.random() < 0.5 else bytes(65536) for _ in range(size // 65536))


async def uploaded(site: Site, path: str, body: bytes, headers: str = "") -> Any:
    """The ended task of an upload."""
    task = await site.task()
    reply = await site.ask("PUT", f"/import_raw_vdi?{path}&task_id={task}", body, headers)
    assert reply.status == 200
    return await site.ended(task)


async def test_a_raw_disk_comes_back_as_it_was_sent(site: Site, disks: RealDisks) -> None:
    ref, uuid = await new_disk(site)
    task = await uploaded(site, f"vdi={uuid}", content())
    assert (task["status"], task["result"]) == ("success", f"<value>{ref}</value>")
    reply = await site.ask("GET", f"/export_raw_vdi?vdi={ref}")
    assert (reply.line, reply.body) == ("HTTP/1.1 200 OK", content())
    assert reply["content-length"] == str(SIZE)
    assert reply["content-type"] == "application/octet-stream"
    assert reply["content-disposition"] == f'attachment; filename="{uuid}.raw"'
    await site.pool.until(disks.storage.nothing_is_open)


@pytest.mark.parametrize("form", ["vhd", "qcow2", "tar"])
async def test_every_format_goes_out_and_in_again(site: Site, disks: RealDisks, form: str) -> None:
    source, uuid = await new_disk(site)
    await uploaded(site, f"vdi={source}", content())
    image = await site.ask("GET", f"/export_raw_vdi?vdi={source}&format={form.upper()}")
    assert image["content-type"] == {"vhd": "application/vhd", "qcow2": "application/x-qemu-disk"}.get(
        form, "application/x-tar"
    )
    assert image["content-disposition"] == f'attachment; filename="{uuid}.{form}"'
    target, _ = await new_disk(site)
    assert (await uploaded(site, f"vdi={target}&format={form}", image.body))["status"] == "success"
    assert (await site.ask("GET", f"/export_raw_vdi?vdi={target}")).body == content()


@pytest.mark.parametrize("form", ["vhd", "qcow2"])
async def test_a_delta_makes_a_clone_of_the_base_the_newer_disk(site: Site, disks: RealDisks, form: str) -> None:
    base, _ = await new_disk(site)
    newer, _ = await new_disk(site)
    copy, _ = await new_disk(site)
    changed = bytearray(content())
    changed[2 * MIB + 300_000 : 2 * MIB + 300_005] = b"newer"
    changed[2 * MIB : 2 * MIB + 200_000] = bytes(200_000)
    for disk, data in ((base, content()), (newer, bytes(changed)), (copy, content())):
        await uploaded(site, f"vdi={disk}", data)
    delta = (await site.ask("GET", f"/export_raw_vdi?vdi={newer}&base={base}&format={form}")).body
    whole = (await site.ask("GET", f"/export_raw_vdi?vdi={newer}&format={form}")).body
    assert len(delta) < len(whole)
    await uploaded(site, f"vdi={copy}&format={form}", delta)
    assert (await site.ask("GET", f"/export_raw_vdi?vdi={copy}")).body == changed


async def test_a_raw_image_becomes_a_new_disk_of_an_sr(site: Site, disks: RealDisks) -> None:
    sr = next(iter(site.pool.store.rows("SR")))
    task = await uploaded(site, f"sr_id={sr}", content())
    (ref,) = site.pool.store.rows("VDI")
    row = site.pool.row("VDI", ref)
    assert task["result"] == f"<value>{ref}</value>"
    assert (row["name_label"], row["virtual_size"], row["other_config"]) == ("Imported VDI", SIZE, {})
    assert (await site.ask("GET", f"/export_raw_vdi?vdi={ref}")).body == content()


async def test_root_on_the_unix_socket_needs_no_session_for_a_new_disk(site: Site, disks: RealDisks) -> None:
    uuid = next(iter(site.pool.store.rows("SR").values()))["uuid"]
    reply = await site.ask("PUT", f"/import_raw_vdi?sr_uuid={uuid}", content(), kind=Kind.UNIX, session="")
    assert reply.status == 200
    await site.pool.until(lambda: not site.tasks())
    (ref,) = site.pool.store.rows("VDI")
    assert (await site.ask("GET", f"/export_raw_vdi?vdi={ref}")).body == content()


async def test_an_upload_that_is_cut_leaves_a_failed_task_and_no_new_disk(site: Site, disks: RealDisks) -> None:
    sr = next(iter(site.pool.store.rows("SR")))
    task = await site.task()
    client = await site.connect()
    head = site.request("PUT", f"/import_raw_vdi?sr_id={sr}&task_id={task}", None, f"Content-Length: {SIZE}\r\n")
    await client.send(head + content()[: SIZE // 2])
    client.writer.write_eof()
    ended = await site.ended(task)
    assert (ended["status"], ended["error_info"][0]) == ("failure", "INTERNAL_ERROR")
    assert "End_of_file" in ended["error_info"][1]
    assert not site.pool.store.rows("VDI")
    await site.pool.until(disks.storage.nothing_is_open)


async def test_a_new_disk_says_that_it_is_not_finished_until_its_upload_is(site: Site, disks: RealDisks) -> None:
    sr = next(iter(site.pool.store.rows("SR")))
    task = await site.task()
    client = await site.connect()
    head = site.request("PUT", f"/import_raw_vdi?sr_id={sr}&task_id={task}", None, f"Content-Length: {SIZE}\r\n")
    await client.send(head + content()[: SIZE // 2])
    await client.reader.readuntil(b"\r\n\r\n")
    ((ref, row),) = site.pool.store.rows("VDI").items()
    api = site.pool.api
    assert unfinished_disks.owner(row) == unfinished_disks.upload(api.host_uuid, api.process)
    await client.send(content()[SIZE // 2 :])
    assert (await site.ended(task))["status"] == "success"
    assert site.pool.row("VDI", ref)["other_config"] == {}


async def test_a_client_that_resets_its_upload_leaves_a_failed_task(site: Site, disks: RealDisks) -> None:
    ref, _ = await new_disk(site)
    task = await site.task()
    client = await site.connect()
    await client.send(site.request("PUT", f"/import_raw_vdi?vdi={ref}&task_id={task}", None, "") + content()[:MIB])
    await client.reader.readuntil(b"\r\n\r\n")
    client.writer.transport.abort()
    await site.ended(task)
    await site.pool.until(disks.storage.nothing_is_open)


async def test_an_image_that_says_where_it_ends_may_be_announced_longer(site: Site, disks: RealDisks) -> None:
    """Clients that do not know the length announce a huge one, and close when they are through."""
    source, _ = await new_disk(site)
    await uploaded(site, f"vdi={source}", content())
    image = (await site.ask("GET", f"/export_raw_vdi?vdi={source}&format=vhd")).body
    for close in (True, False):
        target, _ = await new_disk(site)
        task = await site.task()
        client = await site.connect()
        path = f"/import_raw_vdi?vdi={target}&format=vhd&task_id={task}"
        await client.send(site.request("PUT", path, None, f"Content-Length: {1 << 50}\r\n") + image)
        if close:
            client.writer.write_eof()
        assert (await site.ended(task))["status"] == "success"
        assert (await site.ask("GET", f"/export_raw_vdi?vdi={target}")).body == content()


async def test_an_empty_upload_answers_and_changes_nothing(site: Site, disks: RealDisks) -> None:
    ref, _ = await new_disk(site)
    await uploaded(site, f"vdi={ref}", content())
    for form in ("raw", "vhd", "qcow2", "tar"):
        reply = await site.ask("PUT", f"/import_raw_vdi?vdi={ref}&format={form}", b"")
        assert (reply.status, reply.body) == (200, b"")
    assert (await uploaded(site, f"vdi={ref}&format=vhd", b""))["error_info"][0] == "IMPORT_ERROR"
    assert (await site.ask("GET", f"/export_raw_vdi?vdi={ref}")).body == content()


async def test_bodies_in_https_chunks_are_taken(site: Site, disks: RealDisks) -> None:
    ref, _ = await new_disk(site)
    task = await site.task()
    client = await site.connect()
    head = site.request("PUT", f"/import_raw_vdi?vdi={ref}&task_id={task}", None, "Transfer-Encoding: chunked\r\n")
    await client.send(head)
    data = content()
    for at in range(0, SIZE, 100_000):
        part = data[at : at + 100_000]
        await client.send(b"%x;name=value\r\n%s\r\n" % (len(part), part))
    await client.send(b"0\r\nTrailer: x\r\n\r\n")
    assert (await site.ended(task))["status"] == "success"
    assert (await site.ask("GET", f"/export_raw_vdi?vdi={ref}")).body == data


@pytest.mark.parametrize("body", [b"5\r\nhello", b"5\r\nhello!!\r\n0\r\n\r\n", b"zz\r\n", b""])
async def test_chunks_that_are_none_fail(site: Site, disks: RealDisks, body: bytes) -> None:
    ref, _ = await new_disk(site)
    task = await site.task()
    client = await site.connect()
    head = site.request("PUT", f"/import_raw_vdi?vdi={ref}&task_id={task}", None, "Transfer-Encoding: chunked\r\n")
    await client.send(head + body)
    client.writer.write_eof()
    assert (await site.ended(task))["error_info"][0] == "INTERNAL_ERROR"


async def test_parts_of_a_disk_come_with_their_places(site: Site, disks: RealDisks) -> None:
    """The argument's chunks, which are not HTTP's: in any order, ended by an empty one."""
    ref, _ = await new_disk(site)
    parts = {2 * MIB: b"later" * 1000, 512: b"sooner" * 1000}
    body = b"".join(at.to_bytes(8, "little") + len(data).to_bytes(4, "little") + data for at, data in parts.items())
    assert (await uploaded(site, f"vdi={ref}&chunked=true", body + bytes(12)))["status"] == "success"
    expected = bytearray(SIZE)
    for at, data in parts.items():
        expected[at : at + len(data)] = data
    assert (await site.ask("GET", f"/export_raw_vdi?vdi={ref}")).body == expected


async def test_an_image_larger_than_its_disk_is_refused(site: Site, disks: RealDisks) -> None:
    ref, _ = await new_disk(site)
    task = await uploaded(site, f"vdi={ref}", content(SIZE + MIB))
    assert task["error_info"][0] == "IMPORT_ERROR"
    assert str(SIZE) in task["error_info"][1]


async def test_a_transfer_that_is_cancelled_closes_its_disk(site: Site, disks: RealDisks) -> None:
    ref, _ = await new_disk(site)
    task = await site.task()
    client = await site.connect()
    path = f"/import_raw_vdi?vdi={ref}&task_id={task}"
    await client.send(site.request("PUT", path, None, f"Content-Length: {SIZE}\r\n") + content()[:MIB])
    await client.reader.readuntil(b"\r\n\r\n")
    await site.client.call("task.cancel", task)
    assert (await site.ended(task))["status"] == "cancelled"
    await site.pool.until(disks.storage.nothing_is_open)


async def test_a_download_that_nobody_takes_holds_little_and_can_be_cancelled(site: Site, disks: RealDisks) -> None:
    ref, _ = await new_disk(site, 64 * MIB)
    task = await site.task()
    client = await site.connect()
    await client.send(site.request("GET", f"/export_raw_vdi?vdi={ref}&task_id={task}"))
    await client.reader.readuntil(b"\r\n\r\n")
    await site.client.call("task.cancel", task)
    assert (await site.ended(task))["status"] == "cancelled"
    await site.pool.until(disks.storage.nothing_is_open)


async def test_a_worker_that_is_killed_fails_the_download(
    site: Site, disks: RealDisks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(JsonFormatter("api", ""))
    ref, _ = await new_disk(site, 64 * MIB)
    task = await site.task()
    client = await site.connect()
    await client.send(site.request("GET", f"/export_raw_vdi?vdi={ref}&task_id={task}"))
    await client.reader.readuntil(b"\r\n\r\n")
    disks.storage.kill_workers()
    ended = await site.ended(task)
    assert (ended["status"], ended["error_info"][0]) == ("failure", "INTERNAL_ERROR")
    with pytest.raises(ConnectionResetError):
        await client.reader.read(-1)
    await site.pool.until(disks.storage.nothing_is_open)
    said = json.loads(next(line for line in caplog.text.splitlines() if '"api.handlers"' in line))
    assert (said["level"], said["task"]) == ("warning", task)
    assert f"GET /export_raw_vdi has failed: INTERNAL_ERROR({ended['error_info'][1]})" in said["message"]


async def test_why_the_disk_cannot_be_had_comes_before_the_reply(
    site: Site, disks: RealDisks, caplog: pytest.LogCaptureFixture
) -> None:
    ref, uuid = await new_disk(site)
    sr = next(iter(site.pool.store.rows("SR").values()))["uuid"]
    await disks.have(sr, uuid)
    async with disks.storage.opened(uuid, sr=sr):
        reply = await site.ask("GET", f"/export_raw_vdi?vdi={ref}")
    assert reply.status == 500
    assert f"VDI_IN_USE: [ {ref}" in reply.body.decode()
    assert f"GET /export_raw_vdi has failed: VDI_IN_USE({ref}" in caplog.text


async def test_a_disk_that_a_killed_process_had_opened_is_free_when_the_next_one_begins(
    site: Site, disks: RealDisks
) -> None:
    """The process of the test is the next one, and keeps what it has opened itself."""
    ref, uuid = await new_disk(site)
    sr = next(iter(site.pool.store.rows("SR").values()))["uuid"]
    host = site.pool.hosts[0]
    wanted = transfer.Export(dp="task/killed", sr=sr, location=uuid, uuid=uuid, format="raw", process="killed")
    await host.bus.call(transfer.EXPORT, wanted, host=host.uuid)
    own = msgspec.structs.replace(wanted, dp="task/own", process=site.api.process)
    await host.bus.call(transfer.EXPORT, own, host=host.uuid)
    await site.handlers.begin()
    assert [held.dp for held in disks.storage.host.datapaths.held()] == ["task/own"]
    assert (await site.ask("GET", f"/export_raw_vdi?vdi={ref}")).status == 200


async def test_two_clients_are_served_at_once(site: Site, disks: RealDisks) -> None:
    ref, _ = await new_disk(site)
    await uploaded(site, f"vdi={ref}", content())
    replies = await asyncio.gather(*(site.ask("GET", f"/export_raw_vdi?vdi={ref}") for _ in range(2)))
    assert [reply.body for reply in replies] == [content()] * 2


async def test_curl_uploads_and_downloads(site: Site, disks: RealDisks, tmp_path: Path) -> None:
    """Over TLS, from its standard input: in chunks; and with a length."""
    image, back = tmp_path / "image", tmp_path / "back"
    image.write_bytes(content())
    url = f"https://127.0.0.1:{site.tls_port}"
    for source in (["-T", "-"], ["-T", str(image)]):
        ref, _ = await new_disk(site)
        query = f"vdi={ref}&session_id={site.client.session}"
        await curl(*source, f"{url}/import_raw_vdi?{query}", stdin=image)
        await site.pool.until(lambda: not site.tasks())
        await curl("-o", str(back), f"{url}/export_raw_vdi?{query}", stdin=image)
        assert back.read_bytes() == content()


async def curl(*arguments: str, stdin: Path) -> None:
    with stdin.open("rb") as data:
        process = await asyncio.create_subprocess_exec("curl", "-fsSk", "--max-time", "20", *arguments, stdin=data)
        assert await process.wait() == 0


async def test_a_disk_whose_sr_is_attached_nowhere_cannot_be_had(site: Site, disks: RealDisks) -> None:
    _, uuid = await new_disk(site)
    (pbd,) = site.pool.store.rows("PBD")
    await site.client.call("PBD.unplug", pbd)
    reply = await site.ask("GET", f"/export_raw_vdi?vdi={uuid}")
    assert reply.status == 500
    assert "SR_HAS_NO_PBDS" in reply.body.decode()
