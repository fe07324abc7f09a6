"""Opening and closing disks on one host and on several."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.plugins.interface import Domain
from shared.contracts.storage import STATIC_DATAPATHS, SrAttach, VdiClone, VdiRef, VdiResize
from shared.errors import ApiError
from tests.storage.support import (
    HOST_A,
    HOST_B,
    MIB,
    SR,
    Machine,
    disk,
    file_plugin,
    machine,
    new_uuid,
    with_disk,
    with_sr,
)


@pytest.fixture(params=["file", "dummy"])
async def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def pool(tmp_path: Path, kind: str) -> AsyncIterator[Machine]:
    """Two hosts in one process that share an SR."""
    async with machine(tmp_path / "state", HOST_A, HOST_B) as made:
        for host in (HOST_A, HOST_B):
            await with_sr(made[host], tmp_path / "sr", kind)
        yield made


async def test_an_open_disk_is_where_the_answer_says(pool: Machine, kind: str, tmp_path: Path) -> None:
    host = pool[HOST_A]
    location = await with_disk(host)
    [backend] = await host.datapaths.open([disk(location)])
    assert (backend.dp, backend.kind, backend.writable) == ("vbd/vm/0", "file", True)
    if kind == "file":
        assert backend.format == "qcow2"
        assert backend.path == str(tmp_path / "sr" / f"{location}.qcow2")
    else:
        assert backend.format == "none"
    [held] = host.datapaths.held()
    assert (held.dp, held.location, held.state, held.writable) == ("vbd/vm/0", location, "activated", True)


@pytest.mark.parametrize("kind", ["file"])
async def test_a_disk_that_another_host_snapshots_while_it_is_being_opened_is_written_to_above_the_snapshot(
    pool: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    location, snapshot = await with_disk(pool[HOST_A]), new_uuid()
    datapath = pool.plugins["file"].datapath
    activate = datapath.activate

    async def overtaken(uri: str, domain: Domain) -> None:
        monkeypatch.setattr(datapath, "activate", activate)
        await pool[HOST_B].disks.clone(VdiClone(sr=SR, location=location, uuid=snapshot, snapshot=True))
        await activate(uri, domain)

    monkeypatch.setattr(datapath, "activate", overtaken)
    [writer] = await pool[HOST_A].datapaths.open([disk(location)])
    [reader] = await pool[HOST_B].datapaths.open([disk(snapshot, dp="task/reader", writable=False)])
    assert writer.path != reader.path


async def test_opening_and_closing_again_changes_nothing(pool: Machine) -> None:
    host = pool[HOST_A]
    location = await with_disk(host)
    assert await host.datapaths.open([disk(location)]) == await host.datapaths.open([disk(location)])
    for _ in range(2):
        await host.datapaths.close(["vbd/vm/0", "never heard of"])
    assert host.datapaths.held() == []


async def test_a_disk_has_one_writer_in_the_pool(pool: Machine) -> None:
    location = await with_disk(pool[HOST_A])
    await pool[HOST_A].datapaths.open([disk(location)])
    for host, dp in ((HOST_A, "vbd/other/0"), (HOST_B, "vbd/vm/0")):
        for writable in (True, False):
            with pytest.raises(ApiError, match="VDI_IN_USE") as refused:
                await pool[host].datapaths.open([disk(location, dp, writable)])
            assert refused.value.params == [location, "attach"]
    assert pool[HOST_B].datapaths.held() == []
    await pool[HOST_A].datapaths.close(["vbd/vm/0"])
    await pool[HOST_B].datapaths.open([disk(location)])


async def test_readers_share_a_disk(pool: Machine) -> None:
    location = await with_disk(pool[HOST_A])
    first, second = disk(location, "vbd/a/0", False), disk(location, "vbd/b/0", False)
    backends = await pool[HOST_A].datapaths.open([first, second])
    await pool[HOST_B].datapaths.open([first])
    assert backends[0].path == backends[1].path
    await pool[HOST_A].datapaths.close(["vbd/a/0"])
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await pool[HOST_B].datapaths.open([disk(location, "vbd/c/0")])
    await pool[HOST_A].datapaths.close(["vbd/b/0"])
    await pool[HOST_B].datapaths.close(["vbd/a/0"])
    await pool[HOST_B].datapaths.open([disk(location, "vbd/c/0")])


async def test_of_several_disks_all_are_opened_or_none(pool: Machine) -> None:
    host = pool[HOST_A]
    first, taken = await with_disk(host), await with_disk(host)
    await pool[HOST_B].datapaths.open([disk(taken, "vbd/other/0")])
    held = await with_disk(host)
    await host.datapaths.open([disk(held, "vbd/vm/7")])
    for last in (taken, "no-such-disk"):
        with pytest.raises(ApiError, match=r"VDI_IN_USE|VDI_MISSING"):
            await host.datapaths.open([disk(held, "vbd/vm/7"), disk(first, "vbd/vm/0"), disk(last, "vbd/vm/1")])
        assert [dp.dp for dp in host.datapaths.held()] == ["vbd/vm/7"]
    await pool[HOST_B].datapaths.open([disk(first, "vbd/other/1")])


async def test_a_snapshot_is_not_opened_for_writing(pool: Machine) -> None:
    host = pool[HOST_A]
    location = await with_disk(host)
    snapshot = await host.disks.clone(VdiClone(sr=SR, location=location, uuid=new_uuid(), snapshot=True))
    with pytest.raises(ApiError, match="VDI_READONLY"):
        await host.datapaths.open([disk(snapshot.location)])
    assert host.datapaths.held() == []
    await host.datapaths.open([disk(snapshot.location, writable=False)])


async def test_a_datapath_serves_one_disk(pool: Machine) -> None:
    host = pool[HOST_A]
    first, second = await with_disk(host), await with_disk(host)
    await host.datapaths.open([disk(first)])
    with pytest.raises(ApiError, match="INTERNAL_ERROR"):
        await host.datapaths.open([disk(second)])
    with pytest.raises(ApiError, match="INTERNAL_ERROR"):
        await host.datapaths.open([disk(first, writable=False)])
    [held] = host.datapaths.held()
    assert (held.location, held.writable) == (first, True)


async def test_nothing_is_opened_in_an_sr_that_is_not_attached(pool: Machine) -> None:
    with pytest.raises(ApiError, match="SR_NOT_ATTACHED") as refused:
        await pool[HOST_A].datapaths.open([disk("x", sr="unknown")])
    assert refused.value.params == ["unknown"]


async def test_an_sr_in_use_is_not_detached(pool: Machine) -> None:
    host = pool[HOST_A]
    location = await with_disk(host)
    await host.datapaths.open([disk(location)])
    with pytest.raises(ApiError, match="SR_DEVICE_IN_USE"):
        await host.detach_sr(SR)
    await host.datapaths.close(["vbd/vm/0"])
    await host.detach_sr(SR)
    await host.detach_sr(SR)
    with pytest.raises(ApiError, match="SR_NOT_ATTACHED"):
        await host.disks.scan(SR)


async def test_a_disk_in_use_is_not_changed(pool: Machine) -> None:
    host = pool[HOST_A]
    location = await with_disk(host)
    await host.datapaths.open([disk(location)])
    for where in (HOST_A, HOST_B):
        disks = pool[where].disks
        with pytest.raises(ApiError, match="VDI_IN_USE") as refused:
            await disks.destroy(VdiRef(sr=SR, location=location))
        assert refused.value.params == [location, "destroy"]
    elsewhere = pool[HOST_B].disks  # where it is in use, its hypervisor may help
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await elsewhere.resize(VdiResize(sr=SR, location=location, virtual_size=64 * MIB))
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await elsewhere.clone(VdiClone(sr=SR, location=location, uuid=new_uuid()))
    await host.datapaths.close(["vbd/vm/0"])
    await pool[HOST_B].disks.destroy(VdiRef(sr=SR, location=location))


async def test_a_dead_host_s_disks_are_free_when_it_is_fenced_and_only_then(pool: Machine) -> None:
    location = await with_disk(pool[HOST_A])
    await pool[HOST_B].datapaths.open([disk(location)])
    with pytest.raises(ApiError, match="HOST_IS_LIVE"):
        await pool[HOST_A].fence(HOST_A)
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await pool[HOST_A].datapaths.open([disk(location)])
    assert await pool[HOST_A].fence(HOST_B) == 1
    await pool[HOST_A].datapaths.open([disk(location)])


async def test_an_open_that_nobody_waits_for_any_more_is_undone(pool: Machine) -> None:
    host = pool[HOST_A]
    location = await with_disk(host)
    opening = asyncio.create_task(host.datapaths.open([disk(location)]))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert host.datapaths.held() == []
    await pool[HOST_B].datapaths.open([disk(location)])


async def test_what_cannot_be_recorded_is_not_opened(pool: Machine, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    host = pool[HOST_A]
    location = await with_disk(host)
    with monkeypatch.context() as broken:
        broken.setattr("services.storage.journal._write_all", _disk_full)
        with pytest.raises(ApiError, match="No space left"):
            await host.datapaths.open([disk(location)])
    assert host.datapaths.held() == []
    await pool[HOST_B].datapaths.open([disk(location)])


async def test_what_cannot_be_closed_stays_listed_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "sr"
    async with machine(tmp_path / "state") as one:
        host = one[HOST_A]
        await with_sr(host, folder)
        location = await with_disk(host)
        await host.datapaths.open([disk(location)])
        os.rename(folder, tmp_path / "unplugged")
        await host.datapaths.close(["vbd/vm/0"])
        assert [(dp.dp, dp.leaked) for dp in host.datapaths.held()] == [("vbd/vm/0", True)]
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
            await host.datapaths.open([disk(location)])
        os.rename(tmp_path / "unplugged", folder)
        await host.datapaths.open([disk(location, "vbd/other/0")])
        assert [dp.dp for dp in host.datapaths.held()] == ["vbd/other/0"]


# -- restarts ----------------------------------------------------------------------------------------------------------


async def test_after_a_restart_everything_is_as_it_was(tmp_path: Path, kind: str) -> None:
    async with machine(tmp_path / "state", HOST_A, HOST_B) as before:
        for host in (HOST_A, HOST_B):
            await with_sr(before[host], tmp_path / "sr", kind)
        location = await with_disk(before[HOST_A])
        backends = await before[HOST_A].datapaths.open([disk(location)])
        held = before[HOST_A].datapaths.held()
    async with machine(tmp_path / "state", HOST_A, HOST_B) as after:
        assert after[HOST_A].datapaths.held() == held
        assert await after[HOST_A].datapaths.open([disk(location)]) == backends
        with pytest.raises(ApiError, match="VDI_IN_USE"):
            await after[HOST_B].datapaths.open([disk(location)])
        assert (await after[HOST_A].disks.scan(SR)).disks[0].location == location


async def test_after_a_reboot_nothing_is_open(tmp_path: Path, kind: str) -> None:
    async with machine(tmp_path / "state", HOST_A, HOST_B) as before:
        for host in (HOST_A, HOST_B):
            await with_sr(before[host], tmp_path / "sr", kind)
        location = await with_disk(before[HOST_A])
        await before[HOST_A].datapaths.open([disk(location)])
    async with machine(tmp_path / "state", HOST_A, HOST_B, boot="boot-2") as after:
        assert after[HOST_A].datapaths.held() == []
        await after[HOST_B].datapaths.open([disk(location)])


async def test_static_datapaths_are_opened_again_after_a_reboot_until_they_are_closed(tmp_path: Path) -> None:
    """Also those that could not be for a while."""
    folder = tmp_path / "sr"
    async with machine(tmp_path / "state") as before:
        await with_sr(before[HOST_A], folder)
        location = await with_disk(before[HOST_A])
        await before[HOST_A].datapaths.open([disk(location, f"{STATIC_DATAPATHS}a")])
    os.rename(folder / f"{location}.qcow2", tmp_path / "away")
    async with machine(tmp_path / "state", boot="boot-2") as after:
        assert after[HOST_A].datapaths.held() == []
        with pytest.raises(ApiError, match="SR_DEVICE_IN_USE"):
            await after[HOST_A].detach_sr(SR)
        with pytest.raises(ApiError, match="VDI_MISSING"):
            await after[HOST_A].datapaths.open([disk(location, f"{STATIC_DATAPATHS}a")])
    os.rename(tmp_path / "away", folder / f"{location}.qcow2")
    for boot in ("boot-3", "boot-4"):
        async with machine(tmp_path / "state", boot=boot) as after:
            [held] = after[HOST_A].datapaths.held()
            assert (held.dp, held.state, held.writable) == (f"{STATIC_DATAPATHS}a", "activated", True)
            if boot == "boot-4":
                await after[HOST_A].datapaths.close([held.dp])
    async with machine(tmp_path / "state", boot="boot-5") as after:
        assert after[HOST_A].datapaths.held() == []
        await after[HOST_A].detach_sr(SR)


async def test_an_sr_that_is_away_at_the_start_is_attached_when_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "sr"
    async with machine(tmp_path / "state") as before:
        await with_sr(before[HOST_A], folder)
        location = await with_disk(before[HOST_A])
        await before[HOST_A].datapaths.open([disk(location)])
    os.rename(folder, tmp_path / "unplugged")
    async with machine(tmp_path / "state") as after:
        host = after[HOST_A]
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
            await host.disks.scan(SR)
        assert [dp.dp for dp in host.datapaths.held()] == ["vbd/vm/0"]
        os.rename(tmp_path / "unplugged", folder)
        await host.retry()
        await host.datapaths.close(["vbd/vm/0"])
        assert host.datapaths.held() == []


async def test_a_host_that_lost_its_memory_lists_what_the_sr_remembers(tmp_path: Path) -> None:
    folder = tmp_path / "sr"
    async with machine(tmp_path / "state") as before:
        await with_sr(before[HOST_A], folder)
        location = await with_disk(before[HOST_A])
        await before[HOST_A].datapaths.open([disk(location)])
        held = before[HOST_A].datapaths.held()
    async with machine(tmp_path / "new-state") as after:
        host = after[HOST_A]
        await host.attach_sr(SrAttach(sr=SR, type="file", device_config={"location": str(folder)}))
        assert host.datapaths.held() == held
        await host.datapaths.close(["vbd/vm/0"])
        await host.datapaths.open([disk(location, "vbd/other/0")])


async def test_a_fenced_host_that_comes_back_does_not_take_its_disk_again(tmp_path: Path) -> None:
    folder = tmp_path / "sr"
    async with machine(tmp_path / "state") as before:
        await with_sr(before[HOST_A], folder)
        location = await with_disk(before[HOST_A])
        await before[HOST_A].datapaths.open([disk(location)])
    rescuer = file_plugin()
    sr = await rescuer.sr.attach(SR, {"location": str(folder)}, HOST_B)
    assert await rescuer.datapath.fence(sr, HOST_A) == 1
    uri = (await rescuer.volume.stat(sr, location)).uri[0]
    rescued = Domain(host=HOST_B, dp="vbd/rescued/0")
    await rescuer.datapath.activate(uri, rescued)
    async with machine(tmp_path / "state") as after:
        await after[HOST_A].datapaths.close(["vbd/vm/0"])
        assert after[HOST_A].datapaths.held() == []
        with pytest.raises(ApiError, match="VDI_IN_USE"):
            await after[HOST_A].datapaths.open([disk(location)])
    await rescuer.datapath.activate(uri, rescued)
    await rescuer.close()


async def test_a_copy_that_a_crash_interrupted_does_not_keep_its_source(tmp_path: Path) -> None:
    async with machine(tmp_path / "state") as before:
        await with_sr(before[HOST_A], tmp_path / "sr")
        location = await with_disk(before[HOST_A])
        await before[HOST_A].datapaths.open([disk(location, "copy/x", writable=False)])
    async with machine(tmp_path / "state") as after:
        assert after[HOST_A].datapaths.held() == []
        await after[HOST_A].datapaths.open([disk(location)])


def _disk_full(_: int, __: bytes) -> None:
    raise OSError(28, "No space left on device")
