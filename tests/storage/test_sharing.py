"""Disks that several VMs write to at the same time (sharable)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.storage.datapaths import Datapaths
from services.storage.nbd.client import NbdClient
from services.storage.nbd.server import NbdServer, arguments
from services.storage.vhost.server import DiskServer
from services.vm.qemu.disks import nodes
from shared.contracts.storage import Backend, DiskOpen, VdiCreate, VdiRef
from shared.errors import ApiError
from tests.storage.support import HOST_A, HOST_B, MIB, SR, Machine, disk, machine, new_uuid, with_sr

DPS = ("vbd/a/0", "vbd/b/0")


@pytest.fixture(params=["file", "dummy"])
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machine]:
    """Two hosts in one process that share an SR."""
    async with machine(tmp_path / "state", HOST_A, HOST_B) as made:
        for host in (HOST_A, HOST_B):
            await with_sr(made[host], tmp_path / "sr", str(request.param))
        yield made


async def sharable_disk(pool: Machine) -> str:
    wanted = VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=4 * MIB, sharable=True)
    made = await pool[HOST_A].disks.create(wanted)
    assert made.sharable
    assert await pool[HOST_A].disks.create(wanted) == made, "the request was repeated"
    return made.location


async def test_hosts_and_vms_write_to_a_sharable_disk_at_the_same_time(pool: Machine) -> None:
    location = await sharable_disk(pool)
    opened = [(pool[host].datapaths, dp) for host in (HOST_A, HOST_B) for dp in DPS]
    for datapaths, dp in opened:
        [backend] = await datapaths.open([disk(location, dp)])
        assert (backend.writable, backend.shared) == (True, True)
    [reader] = await pool[HOST_A].datapaths.open([disk(location, "task/export", writable=False)])
    assert not reader.writable
    for datapaths, dp in [*opened, (pool[HOST_A].datapaths, "task/export")]:
        with pytest.raises(ApiError, match="VDI_IN_USE"):
            await pool[HOST_B].disks.destroy(VdiRef(sr=SR, location=location))
        await datapaths.close([dp])
    await pool[HOST_B].disks.destroy(VdiRef(sr=SR, location=location))


async def test_a_reader_of_a_sharable_disk_keeps_no_writer_away(pool: Machine) -> None:
    location = await sharable_disk(pool)
    datapaths = pool[HOST_A].datapaths
    both = [DiskOpen(dp=dp, sr=SR, location=location, writable=dp != DPS[0]) for dp in DPS]
    for each in both:
        await datapaths.open([each])
    await datapaths.close([DPS[1]])
    await datapaths.open([both[1]])
    await datapaths.close(DPS)
    assert datapaths.held() == []


async def test_after_a_restart_a_sharable_disk_is_still_shared(pool: Machine) -> None:
    location = await sharable_disk(pool)
    await pool[HOST_A].datapaths.open([disk(location, DPS[0])])
    again = Datapaths(pool[HOST_A].repositories, pool[HOST_A].locks, pool.journal)
    await again.recover(SR)
    [backend] = await again.open([disk(location, DPS[1])])
    assert backend.shared
    assert len(again.held()) == 2


@pytest.mark.parametrize("direct", [False, True])
async def test_what_one_writes_the_other_reads(tmp_path: Path, direct: bool) -> None:
    """QEMU's own locks would keep the second one out."""
    image = tmp_path / "image, with a comma"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(MIB)
    shared = Backend(dp=DPS[0], kind="file", path=str(image), format="raw", writable=True, shared=True, direct=direct)
    assert ("--cache=none" in arguments(shared, tmp_path)) is direct
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(await start(shared, tmp_path))
            for start in (NbdServer.start, DiskServer.serve)
        ]
        one, other = [await stack.enter_async_context(await NbdClient.connect(each.address)) for each in servers]
        await one.write(0, b"1" * 512)
        await other.write(512, b"2" * 512)
        assert await other.read(0, 512) == b"1" * 512
        assert await one.read(512, 512) == b"2" * 512


def test_a_vm_opens_a_sharable_disk_without_locks_and_past_the_page_cache() -> None:
    shared = Backend(dp="d", kind="file", path="/x", format="raw", writable=True, shared=True, direct=True)
    file = nodes.image(shared, "n", writable=True)["file"]
    assert (file["locking"], file["cache"]) == ("off", {"direct": True})
    alone = Backend(dp="d", kind="file", path="/x", format="raw", writable=True)
    assert "locking" not in nodes.image(alone, "n", writable=True)["file"]
