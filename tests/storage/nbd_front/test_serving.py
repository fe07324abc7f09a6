"""Disks of a pool read by NBD: ours and QEMU's clients, with and without TLS, and who is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from services.api import nbd_readers
from services.storage.nbd.address import Address
from services.storage.nbd.client import NbdClient, NbdError
from services.storage.nbd.front.readers import Readers
from services.storage.nbd.server import NbdServer
from shared.contracts.db import SetAdd
from shared.contracts.storage import Backend
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.role_matrix import log_in
from tests.storage.nbd_front.served import Served, served
from tests.storage.support import MIB


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    async with served(tmp_path, monkeypatch) as running:
        yield running


async def filled(host: Served) -> tuple[str, bytes]:
    content = bytearray(2 * MIB)
    content[MIB : MIB + 300_000] = random.Random(1).randbytes(300_000)
    vdi = await host.disk(len(content))
    await host.write(vdi, MIB, bytes(content[MIB : MIB + 300_000]))
    return vdi, bytes(content)


@pytest.mark.parametrize("purpose", ["nbd", "insecure_nbd"])
async def test_a_snapshot_is_read_by_two_kinds_of_clients(host: Served, purpose: str) -> None:
    """While its VM's disk goes on changing."""
    vdi, content = await filled(host)
    snapshot = await host.client.call("VDI.snapshot", vdi, {})
    await host.purpose(purpose)
    client = await host.connect(snapshot)
    await host.write(vdi, 0, b"later" * 1000)
    assert client.size == len(content)
    assert not client.writable
    assert await client.read(0, MIB) + await client.read(MIB, MIB) == content
    extents = [extent async for extent in client.extents()]
    assert [extent.zero for extent in extents] == [True, False, True]
    [vbd] = host.vbds()
    assert (vbd["VDI"], vbd["mode"], vbd["currently_attached"], vbd["type"]) == (snapshot, "RO", True, "Disk")
    assert await host.client.refusal("VDI.destroy", snapshot) == ["VDI_IN_USE", snapshot, "destroy"]
    with pytest.raises(OSError, match="write"):
        await client.write(0, bytes(512))
    await client.close()
    target = host.folder / "copy.raw"
    assert await host.qemu_img(snapshot, "convert", "-O", "raw", str(target)) == (0, "")
    assert target.read_bytes() == content
    status, said = await host.qemu_img(snapshot, "map", "--output=json")
    assert status == 0
    data = [part for part in json.loads(said) if part["data"]]
    assert data[0]["start"] == MIB
    assert sum(part["length"] for part in data) < MIB
    await host.until_closed()
    await host.client.call("VDI.destroy", snapshot)


async def test_each_client_has_a_vbd_and_those_of_a_killed_service_go_when_there_is_another_one(host: Served) -> None:
    vdi = await host.disk()
    left = host.pool.host_ref(0)
    await host.purpose("insecure_nbd")
    await nbd_readers.plugged(host.pool.api, left, "of an earlier life", vdi)
    clients = [await host.connect(vdi) for _ in range(2)]
    assert len({vbd["userdevice"] for vbd in host.vbds()}) == 3
    [ref] = [ref for ref, row in host.pool.store.rows("VBD").items() if row["userdevice"] == "0"]
    assert await host.client.refusal("VBD.unplug", ref) == ["VBD_NOT_UNPLUGGABLE", ref]
    await clients[0].close()
    await host.pool.until(lambda: len(host.vbds()) == 1)
    assert await clients[1].read(0, 512) == bytes(512)
    await clients[1].close()
    await host.until_closed()

    await nbd_readers.plugged(host.pool.api, left, "of this one", vdi)
    readers = Readers(host.pool.row("host", left)["uuid"], host.pool.hosts[0].bus)
    readers.begin(lambda work, name: asyncio.create_task(work, name=name))
    await host.pool.until(lambda: not host.vbds())
    await readers.close()


async def test_a_disk_that_cannot_be_opened_leaves_no_vbd(host: Served) -> None:
    sr = await host.client.call("SR.create", host.pool.host_ref(0), {}, 0, "s", "", "dummy", "", False, {})
    vdi = await host.client.call("VDI.create", records.vdi(sr, MIB))
    await host.purpose("insecure_nbd")
    export = (await host.info(vdi))["exportname"]
    assert "SR_OPERATION_NOT_SUPPORTED" in await refused(host, export), "a simulated disk has no content"
    await host.until_closed()


async def refused(host: Served, export: str) -> str:
    """Why a client without TLS does not get that export."""
    with pytest.raises(NbdError) as caught:
        await NbdClient.connect(Address(host="127.0.0.1", port=host.port, export=export))
    return str(caught.value)


async def test_only_a_session_that_may_plug_disks_reads_them(host: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A session that ends meanwhile cuts nobody off, as upstream's server has it. No log tells a session."""
    caplog.set_level(logging.INFO, "storage.nbd")
    vdi, content = await filled(host)
    await host.purpose("insecure_nbd")
    uuid = host.pool.row("VDI", vdi)["uuid"]
    good = f"session_id={host.client.session}"
    assert "SESSION_INVALID" in await refused(host, f"/{uuid}?session_id=OpaqueRef:nobody")
    assert "no export" in await refused(host, f"/{uuid}")
    assert "no export" in await refused(host, f"/{host.pool.row('SR', host.sr)['uuid']}?{good}")
    assert "no export" in await refused(host, f"nbd://{uuid}?{good}")
    reader = await log_in(host.pool, "read-only")
    assert "RBAC_PERMISSION_DENIED" in await refused(host, f"/{uuid}?session_id={reader.session}")
    assert host.bench.nothing_is_open()
    operator = await log_in(host.pool, "vm-admin")
    address = Address(host="127.0.0.1", port=host.port, export=f"/{uuid}?session_id={operator.session}")
    client = await NbdClient.connect(address)
    await operator.call("session.logout")
    assert await client.read(MIB, 512) == content[MIB : MIB + 512]
    assert "SESSION_INVALID" in await refused(host, address.export)
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        async with host.bench.opened(host.place(vdi), sr=host.pool.row("SR", host.sr)["uuid"]):
            raise AssertionError("a disk that is read was opened for writing")
    await client.close()
    await host.until_closed()
    assert uuid in caplog.text
    assert operator.session not in caplog.text


async def test_networks_say_where_there_is_tls_and_where_nothing(host: Served) -> None:
    vdi, _ = await filled(host)
    assert not host.front.ports
    await host.purpose("nbd")
    assert "TLS is required" in await refused(host, (await host.info(vdi))["exportname"])
    reading = await host.connect(vdi)
    await host.purpose()
    assert await reading.read(0, 512) == bytes(512)  # who is there may stay
    await reading.close()
    await host.purpose("nbd")
    await host.pool.write(SetAdd(cls="network", ref=host.network, field="purpose", value="insecure_nbd"))
    await host.until_listening(False)  # one asks for TLS, the other for none
    await host.purpose("insecure_nbd")
    status, said = await host.qemu_img(vdi, "info")
    assert (status, "2 MiB" in said) == (0, True)


async def test_a_process_that_was_killed_leaves_nothing_open_and_has_a_successor(host: Served) -> None:
    vdi, content = await filled(host)
    await host.purpose("insecure_nbd")
    client = await host.connect(vdi)
    killed = host.front.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(NbdError):
        await client.read(0, 512)
    await client.close()
    await host.until_closed()
    await host.until_listening(False)
    await host.until_listening()
    again = await host.connect(vdi)
    assert await again.read(MIB, 512) == content[MIB : MIB + 512]
    await again.close()


async def test_block_status_tells_what_has_changed_since_another_snapshot(host: Served) -> None:
    """To our client and to QEMU's, together with where there is data."""
    vdi, _ = await filled(host)
    await host.client.call("VDI.enable_cbt", vdi)
    first = await host.client.call("VDI.snapshot", vdi, {})
    await host.write(vdi, 5 * 65536 + 10, b"changed")
    second = await host.client.call("VDI.snapshot", vdi, {})
    uuid = host.pool.row("VDI", first)["uuid"]
    context, more = f"qemu:dirty-bitmap:{uuid}", f"&changed_since={uuid}"
    await host.purpose("nbd")
    client = await host.connect(second, more, ("base:allocation", context))
    assert client.contexts == {"base:allocation", context}
    changed = [(offset, length) async for offset, length, flags in client.status(context, 0, client.size) if flags]
    assert changed == [(5 * 65536, 65536)]
    assert await client.read(5 * 65536 + 10, 7) == b"changed"
    assert [extent.zero async for extent in client.extents()] == [True, False, True, False, True]
    await client.close()
    status, said = await host.qemu_img(second, "map", "--output=json", more=more, **{"x-dirty-bitmap": context})
    assert status == 0
    assert [(part["start"], part["length"]) for part in json.loads(said) if not part["data"]] == [(5 * 65536, 65536)]
    assert "SR_BACKEND_FAILURE_460" in await _why(host, first, f"&changed_since={host.pool.row('VDI', second)['uuid']}")
    await host.until_closed()


async def _why(host: Served, vdi: str, more: str) -> str:
    status, said = await host.qemu_img(vdi, "info", more=more)
    assert status
    return said


async def test_a_server_of_a_plug_in_lets_no_client_write(tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(b"content".ljust(MIB, b"."))
    disk = Backend(dp="nbd/1", kind="file", path=str(image), format="raw", writable=True)
    async with await NbdServer.start(disk, tmp_path) as plugins:
        there = replace(disk, kind="nbd", path=str(plugins.address), writable=False)
        async with (
            await NbdServer.start(there, tmp_path, guarded=True) as guard,
            await NbdClient.connect(guard.address) as client,
        ):
            assert not client.writable
            assert await client.read(0, 7) == b"content"
            with pytest.raises(NbdError):
                await client.write(0, bytes(512))
    assert image.read_bytes()[:7] == b"content"
