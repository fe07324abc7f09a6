"""Disks into streams and back, with real workers and servers; each block is compared with a model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from shared.contracts.storage import VdiClone
from shared.contracts.transfer import Copy, Export, Format, Import
from shared.errors import ApiError
from tests.storage.support import MIB, SR, new_uuid, with_sr
from tests.storage.transfer.bench import Bench, Model, Reports, bench

FORMATS: tuple[Format, ...] = ("raw", "vhd", "qcow2", "tar")
SIZE = 5 * MIB + 512 * 3


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as running:
        yield running


async def filled(storage: Bench, seed: int = 1, size: int = SIZE) -> tuple[str, Model]:
    model, location = Model(size, seed), await storage.disk(size)
    async with storage.opened(location) as client:
        await model.change(client)
    return location, model


@pytest.mark.parametrize("form", FORMATS)
async def test_what_is_exported_and_imported_is_the_same_disk(storage: Bench, form: Format) -> None:
    location, model = await filled(storage)
    prepared = await storage.export(location, form)
    stream = await storage.take(prepared)
    assert prepared.length in (None, len(stream))
    target, _ = await filled(storage, seed=2)  # which does not shine through
    moved = await storage.give(await storage.accept(target, form), stream)
    assert await storage.content(target) == model.content
    assert moved.data <= SIZE
    assert storage.nothing_is_open()


@pytest.mark.parametrize("form", ["vhd", "qcow2"])
async def test_a_delta_over_its_base_is_the_disk(storage: Bench, form: Format) -> None:
    """What became zeros, too; the plug-in's own comparison, where it has one, may only tell more."""
    base, model = await filled(storage)
    snapshot = (await storage.host.disks.clone(VdiClone(sr=SR, location=base, uuid=new_uuid(), snapshot=True))).location
    clone = (await storage.host.disks.clone(VdiClone(sr=SR, location=snapshot, uuid=new_uuid()))).location
    async with storage.opened(base) as client:
        await model.change(client, 3)
    delta = await storage.take(await storage.export(base, form, base=snapshot, base_uuid=new_uuid()))
    await storage.give(await storage.accept(clone, form, differences=True), delta)
    assert await storage.content(clone) == model.content
    assert storage.nothing_is_open()


async def test_a_copy_has_the_same_content(storage: Bench) -> None:
    source, model = await filled(storage)
    used, _ = await filled(storage, seed=2, size=SIZE + MIB)
    fresh, tail = await storage.disk(SIZE), bytes(MIB)
    for target, zeroed in ((fresh, True), (used, False)):
        request = Copy(dp="task/copy", sr=SR, location=source, to_sr=SR, to_location=target, zeroed=zeroed)
        moved = await storage.transfers.copy(request, Reports())
        assert 0 < moved.data < SIZE
    assert await storage.content(fresh) == model.content
    assert await storage.content(used) == model.content + tail
    assert storage.nothing_is_open()


async def test_a_copy_of_what_differs_brings_a_base_up_to_date(storage: Bench) -> None:
    base, model = await filled(storage)
    newer, target = await storage.disk(SIZE), await storage.disk(SIZE)
    everything = Copy(dp="task/copy", sr=SR, location=base, to_sr=SR, to_location=newer)
    await storage.transfers.copy(everything, Reports())
    await storage.transfers.copy(replace(everything, to_location=target), Reports())
    async with storage.opened(newer) as client:
        await model.change(client, 2)
    await storage.transfers.copy(replace(everything, location=newer, to_location=target, base=base), Reports())
    assert await storage.content(target) == model.content


async def test_a_copy_that_does_not_fit_fails_before_it_writes(storage: Bench) -> None:
    source, target = await storage.disk(2 * MIB), await storage.disk(MIB)
    with pytest.raises(ApiError):
        await storage.transfers.copy(
            Copy(dp="task/copy", sr=SR, location=source, to_sr=SR, to_location=target), Reports()
        )
    assert storage.nothing_is_open()


async def test_a_client_that_breaks_off_fails_the_transfer(storage: Bench) -> None:
    location, _ = await filled(storage)
    prepared = await storage.export(location)
    _, writer = await asyncio.open_unix_connection(prepared.path)
    writer.close()
    with pytest.raises(ApiError) as failed:
        await storage.end(prepared)
    assert "broken off" in str(failed.value)
    assert storage.nothing_is_open()


@pytest.mark.parametrize("form", ["vhd", "qcow2", "tar"])
async def test_a_stream_that_ends_early_says_where(storage: Bench, form: Format) -> None:
    location, _ = await filled(storage)
    stream = await storage.take(await storage.export(location, form))
    with pytest.raises(ApiError) as failed:
        await storage.give(await storage.accept(location, form), stream[: len(stream) // 2])
    assert failed.value.code == "IMPORT_ERROR"
    assert "ends" in failed.value.params[0]
    assert storage.nothing_is_open()


async def test_a_client_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    async with bench(tmp_path, patience=0.1) as storage:
        prepared = await storage.accept(await storage.disk())
        with pytest.raises(ApiError) as failed:
            await storage.end(prepared)
        assert "nobody came" in str(failed.value)
        assert storage.nothing_is_open()


async def test_nobody_waits_for_a_process_that_has_ended(storage: Bench) -> None:
    location = await storage.disk()
    await storage.export(location, process="earlier")
    own = await storage.export(location, process="new")
    nobodys = await storage.export(location)
    opening = asyncio.create_task(storage.export(location, process="earlier"))
    await asyncio.sleep(0)  # it has begun
    await storage.transfers.abandon("new")
    with pytest.raises(ApiError, match="has ended"):
        await opening
    assert len(storage.host.datapaths.held()) == 2
    for prepared in (own, nobodys):
        assert len(await storage.take(prepared)) == 4 * MIB
    assert storage.nothing_is_open()


async def test_a_cancelled_transfer_has_closed_its_disks(storage: Bench) -> None:
    prepared = await storage.accept(await storage.disk())
    await storage.transfers.cancel(prepared.transfer)
    assert storage.nothing_is_open()
    with pytest.raises(ApiError) as failed:
        await storage.end(prepared)
    assert failed.value.code == "TASK_CANCELLED"


async def test_who_waits_for_a_transfer_cancels_it_with_itself(storage: Bench) -> None:
    prepared = await storage.export(await storage.disk())
    waiting = asyncio.create_task(storage.end(prepared))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert storage.nothing_is_open()


async def test_a_disk_in_use_is_neither_read_nor_written(storage: Bench) -> None:
    location = await storage.disk()
    async with storage.opened(location):
        for begin in (storage.export(location), storage.accept(location)):
            with pytest.raises(ApiError) as failed:
                await begin
            assert failed.value.code == "VDI_IN_USE"
    assert storage.nothing_is_open()


async def test_a_simulated_disk_is_zeros_and_takes_anything(tmp_path: Path) -> None:
    async with bench(tmp_path) as storage:
        sr = new_uuid()
        await with_sr(storage.host, tmp_path, "dummy", sr)
        location = await storage.disk(MIB, sr)
        export = await storage.transfers.export(
            Export(dp="task/1", sr=sr, location=location, uuid=new_uuid(), format="raw")
        )
        assert await storage.take(export) == bytes(MIB)
        accepted = await storage.transfers.import_(Import(dp="task/2", sr=sr, location=location, format="raw"))
        assert (await storage.give(accepted, b"x" * MIB)).stream == MIB
        assert storage.nothing_is_open()


async def test_a_vhd_of_a_disk_that_is_too_large_for_it_is_refused(storage: Bench) -> None:
    location = await storage.disk(2041 << 30)
    with pytest.raises(ApiError) as failed:
        await storage.export(location, "vhd")
    assert (failed.value.code, failed.value.params[0]) == ("VDI_TOO_LARGE", location)
    assert storage.nothing_is_open()


async def test_an_empty_disk_of_any_size_is_a_short_stream(storage: Bench) -> None:
    location = await storage.disk(100 << 30)
    prepared = await storage.export(location, "vhd")
    assert prepared.length == len(await storage.take(prepared)) < MIB


async def test_a_service_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its workers and servers end with it; the next one closes what they had open."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.transfer.doomed", str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    location, *pids = (await process.stdout.readline()).decode().split()
    children = [psutil.Process(int(pid)) for pid in pids]
    assert len(children) == 2  # qemu-nbd, and the worker
    process.kill()
    await process.wait()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert (len(gone), alive) == (2, [])
    async with bench(tmp_path) as storage:
        assert not storage.host.datapaths.held()
        async with storage.opened(location):
            pass
