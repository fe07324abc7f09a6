"""Disks that a hypervisor has open: branching, growing and merging them under it, with a real QEMU."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.plugins.file.coalesce import Coalescing
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.file.qemu_img import QemuImg
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain
from shared.errors import ApiError
from tests.storage.images.hypervisor import Hypervisor
from tests.storage.images.world import CLUSTER, World, content
from tests.storage.support import HOST_A, HOST_B, SR, new

VM = Domain(host=HOST_A, dp="vbd/vm/0")
SIZE = 64 * CLUSTER


class Running(World):
    """A world in which a hypervisor has the disk `key` open."""

    hypervisor: Hypervisor
    key: str

    async def guest_writes(self) -> None:
        writes = [(at, length, value or 1) for at, length, value in self.some_writes(len(self.disks[self.key]))]
        await self.hypervisor.write(writes)
        self.note_writes(self.key, writes)

    async def check_running(self) -> None:
        """What the guest sees, what snapshots hold, and that records say what the hypervisor has open."""
        assert await self.hypervisor.content(self.scratch) == self.disks[self.key]
        for key in set(self.disks) - {self.key}:
            assert await content(await self.image(key), self.scratch) == self.disks[key]
        folder = self.plugin.attached(self.sr).folder
        opened = (await self.hypervisor.chain(HOST_A, VM.dp)).images
        assert [Path(image).stem for image in opened] == folder.chain(self.key)

    async def halt(self) -> None:
        await self.hypervisor.stop()
        uri = (await self.plugin.volume.stat(self.sr, self.key)).uri[0]
        await self.plugin.datapath.deactivate(uri, VM)


def make_plugin(hypervisor: Hypervisor) -> FilePlugin:
    return FilePlugin(QemuImg("qemu-img", 60.0), 5.0, hypervisor)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory(prefix="live") as sockets:
        hypervisor = Hypervisor(Path(sockets), VM.dp)
        plugin = make_plugin(hypervisor)
        configuration = await plugin.sr.create(SR, {"location": str(tmp_path / "sr")}, "", "")
        sr = await plugin.sr.attach(SR, configuration, HOST_A)
        made = Running(plugin, sr, tmp_path, random.Random(5))
        made.hypervisor = hypervisor
        made.key = await made.create(SIZE)
        uri = (await plugin.volume.stat(sr, made.key)).uri[0]
        image = (await plugin.datapath.attach(uri, VM)).path
        await plugin.datapath.activate(uri, VM)
        await hypervisor.start(image)
        yield made
        await hypervisor.stop()
        await made.plugin.close()


async def test_a_snapshot_holds_what_the_guest_had_written_and_the_guest_goes_on(world: Running) -> None:
    await world.guest_writes()
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        await world.snapshot(world.key)
        took.append(time.perf_counter() - begin)
        await world.guest_writes()
    await world.clone(world.key)
    await world.guest_writes()
    await world.check_running()
    await world.halt()
    await world.check()
    print(f"snapshots of a running disk took {', '.join(f'{seconds * 1000:.0f} ms' for seconds in took)}")


async def test_a_disk_grows_under_its_guest(world: Running) -> None:
    await world.guest_writes()
    await world.resize(world.key)
    await world.hypervisor.write([(len(world.disks[world.key]) - 512, 512, 7)])
    world.note_writes(world.key, [(len(world.disks[world.key]) - 512, 512, 7)])
    await world.check_running()
    await world.halt()
    await world.check()


async def test_images_of_deleted_snapshots_are_merged_under_the_guest(world: Running) -> None:
    await world.guest_writes()
    snapshots = []
    for _ in range(4):
        snapshots.append(await world.snapshot(world.key))
        await world.guest_writes()
    kept = snapshots.pop(2)
    for key in snapshots:
        await world.destroy(key)
    assert await world.plugin.coalesce(world.sr) >= 2
    await world.check_running()
    assert len(world.plugin.attached(world.sr).folder.chain(world.key)) == 2
    await world.destroy(kept)
    await world.guest_writes()
    await world.plugin.coalesce(world.sr)
    assert {"commit", "pause", "resume"} <= set(world.hypervisor.calls)
    assert len(world.plugin.attached(world.sr).folder.chain(world.key)) == 1
    await world.guest_writes()
    await world.check_running()
    await world.halt()
    await world.check()


async def test_an_image_that_is_too_large_to_wait_for_is_put_below_a_new_one_first(world: Running) -> None:
    world.plugin._coalescing = Coalescing(enabled=False, pause=0)
    world.sr = await world.plugin.sr.attach(SR, {"location": str(world.scratch / "sr")}, HOST_A)
    snapshot = await world.snapshot(world.key)
    await world.hypervisor.write([(0, 32 * CLUSTER, 9)])
    world.note_writes(world.key, [(0, 32 * CLUSTER, 9)])
    await world.destroy(snapshot)
    await world.plugin.coalesce(world.sr)
    assert world.hypervisor.calls == ["snapshot", "snapshot", "commit", "pause", "resume"]
    await world.guest_writes()
    await world.check_running()
    assert len(world.plugin.attached(world.sr).folder.chain(world.key)) == 1


async def test_changes_are_told_though_images_are_merged_under_the_guest(world: Running) -> None:
    await world.track(world.key)
    line = []
    for _ in range(4):
        await world.guest_writes()
        line.append(await world.snapshot(world.key))
    await world.destroy(line.pop(1))
    await world.plugin.volume.data_destroy(world.sr, line[0])
    await world.plugin.coalesce(world.sr)
    await world.guest_writes()
    await world.halt()
    await world.plugin.coalesce(world.sr)
    for at, older in enumerate(line):
        for later in [*line[at + 1 :], world.key]:
            await world.check_changes(older, later)


async def test_a_hypervisor_that_was_not_told_of_its_image_is_told_before_anything_else(world: Running) -> None:
    """The service was killed after it wrote down the new image."""
    await world.guest_writes()

    async def never(host: str, dp: str, overlay: str) -> None:
        world.hypervisor.closed = "and nobody can ask what it has open"
        raise RuntimeError("killed")

    told, world.hypervisor.snapshot = world.hypervisor.snapshot, never  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await world.plugin.volume.snapshot(world.sr, world.key, new())
    world.hypervisor.snapshot, world.hypervisor.closed = told, ""  # type: ignore[method-assign]
    await world.guest_writes()
    await world.snapshot(world.key)
    await world.guest_writes()
    await world.check_running()
    await world.halt()
    await world.check()


async def test_a_snapshot_that_the_hypervisor_refuses_leaves_the_disk_as_it_was(world: Running) -> None:
    await world.guest_writes()
    before = world.plugin.attached(world.sr).folder.names()

    async def refuse(host: str, dp: str, overlay: str) -> None:
        raise ApiError("INTERNAL_ERROR", "no")

    world.hypervisor.snapshot = refuse  # type: ignore[method-assign]
    with pytest.raises(ApiError, match="INTERNAL_ERROR"):
        await world.plugin.volume.snapshot(world.sr, world.key, new())
    assert world.plugin.attached(world.sr).folder.names() == before
    await world.guest_writes()
    await world.check_running()


async def test_a_disk_that_is_activated_and_not_open_yet_is_not_branched(world: Running) -> None:
    """Its hypervisor is about to open the image that is named now."""
    await world.hypervisor.stop()
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await world.plugin.volume.snapshot(world.sr, world.key, new())


async def test_another_host_s_disk_is_left_to_that_host(world: Running) -> None:
    elsewhere = await world.plugin.sr.attach(SR, {"location": str(world.scratch / "sr")}, HOST_B)
    for work in (
        world.plugin.volume.snapshot(elsewhere, world.key, new()),
        world.plugin.volume.resize(elsewhere, world.key, 2 * SIZE),
    ):
        with pytest.raises(ActivatedOnAnotherHost):
            await work
    snapshots = [await world.snapshot(world.key) for _ in range(2)]
    for key in snapshots:
        await world.destroy(key)
    assert await world.plugin.coalesce(elsewhere) == 0
    assert world.plugin.coalescing(elsewhere).waiting > 0
    assert await world.plugin.coalesce(world.sr) > 0
    await world.check_running()


async def test_nothing_is_merged_while_somebody_reads_it(world: Running) -> None:
    snapshots = [await world.snapshot(world.key) for _ in range(3)]
    uri = (await world.plugin.volume.stat(world.sr, snapshots[2])).uri[0]
    reader = Domain(host=HOST_A, dp="nbd/reader")
    await world.plugin.datapath.activate_readonly(uri, reader)
    for key in snapshots[:2]:
        await world.destroy(key)
    assert await world.plugin.coalesce(world.sr) == 0
    await world.plugin.datapath.deactivate(uri, reader)
    assert await world.plugin.coalesce(world.sr) > 0
    await world.check_running()


async def test_a_snapshot_that_is_wanted_while_the_disk_is_being_paused_is_made_afterwards(world: Running) -> None:
    await world.guest_writes()
    await world.destroy(await world.snapshot(world.key))
    pause, asked = world.hypervisor.pause, []

    async def met(host: str, dp: str) -> None:
        await pause(host, dp)
        asked.append(asyncio.create_task(world.snapshot(world.key)))
        await asyncio.wait(asked, timeout=0.3)  # as far as it gets

    world.hypervisor.pause = met  # type: ignore[method-assign]
    await world.plugin.coalesce(world.sr)
    await asked[0]
    assert not world.hypervisor.closed
    await world.guest_writes()
    await world.check_running()


async def test_a_paused_disk_is_resumed_after_a_crash(world: Running) -> None:
    """The service was killed while it merged what the guest writes to."""
    await world.guest_writes()
    await world.destroy(await world.snapshot(world.key))

    async def killed(*_: object) -> None:
        raise RuntimeError("killed")

    resume, world.hypervisor.resume = world.hypervisor.resume, killed  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        await world.plugin.coalesce(world.sr)
    world.hypervisor.resume = resume  # type: ignore[method-assign]
    assert world.hypervisor.closed
    await world.plugin.close()
    world.plugin = make_plugin(world.hypervisor)
    world.sr = await world.plugin.sr.attach(SR, {"location": str(world.scratch / "sr")}, HOST_A)
    await world.plugin.coalesce(world.sr)
    assert not world.hypervisor.closed
    await world.guest_writes()
    await world.check_running()


async def test_a_merge_that_ends_between_attaching_a_disk_and_activating_it_does_not_lead_to_an_image_that_is_gone(
    world: Running,
) -> None:
    """The guest's merge tells the snapshot of the lower image, and removes the one that was found at first."""
    await world.guest_writes()
    below = await world.snapshot(world.key)
    await world.guest_writes()
    wanted = await world.snapshot(world.key)
    await world.guest_writes()
    await world.destroy(below)
    uri = (await world.plugin.volume.stat(world.sr, wanted)).uri[0]
    reader = Domain(host=HOST_A, dp="task/reader", writable=False)
    attached = await world.plugin.datapath.attach(uri, reader)
    assert await world.plugin.coalesce(world.sr) > 0
    assert Path(attached.path).stem not in world.plugin.attached(world.sr).folder.names()[0]
    await world.plugin.datapath.activate_readonly(uri, reader)
    found = await world.plugin.datapath.located(uri, reader, attached)
    assert await content(found.path, world.scratch) == world.disks[wanted]
    await world.plugin.datapath.deactivate(uri, reader)
