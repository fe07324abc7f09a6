"""Merging beside everything else that is done to an SR: who needs the images goes first."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.storage.plugins.file import merging as records
from services.storage.plugins.file.coalesce import Coalescing, Holder, Status, choose
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.file.qemu_img import QemuImg
from services.storage.plugins.file.tree import Disk, Image, Tree
from services.storage.plugins.interface import Domain
from shared.contracts.storage import Merge
from tests.storage.images.world import CLUSTER, World
from tests.storage.support import HOST_A, HOST_B, SR, file_plugin

READER = Domain(host=HOST_A, dp="nbd/reader")


@dataclass
class Slow:
    """A qemu-img whose next commit, if `slow` is there, says that it has begun, and lasts until it is killed."""

    program: Path
    begun: Path
    slow: Path

    async def commit(self) -> int:
        """Waits for one; its process id."""
        return int(await asyncio.wait_for(asyncio.to_thread(self.begun.read_text), 20))


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    made = Slow(tmp_path / "qemu-img", tmp_path / "begun", tmp_path / "slow")
    os.mkfifo(made.begun)
    made.slow.touch()
    made.program.write_text(
        f'#!/bin/sh\n[ "$1" = commit ] && rm {made.slow} 2>/dev/null && echo $$ >{made.begun} && exec sleep 60\n'
        f'exec {shutil.which("qemu-img")} "$@"\n'
    )
    made.program.chmod(0o700)
    return made


@pytest.fixture
async def world(tmp_path: Path, slow: Slow) -> AsyncIterator[World]:
    """A disk whose images can be merged: its snapshot is deleted."""
    plugin = FilePlugin(QemuImg(str(slow.program), 60.0), 5.0)
    configuration = await plugin.sr.create(SR, {"location": str(tmp_path / "sr")}, "", "")
    sr = await plugin.sr.attach(SR, configuration, HOST_A)
    made = World(plugin, sr, tmp_path, random.Random(1))
    disk = await made.create(8 * CLUSTER)
    await made.write(disk)
    snapshot = await made.snapshot(disk)
    await made.write(disk)
    await made.destroy(snapshot)
    yield made
    await plugin.close()


def the_disk(world: World) -> str:
    return next(iter(world.disks))


async def test_who_opens_a_disk_does_not_wait_for_a_merge(world: World, slow: Slow) -> None:
    merging = asyncio.create_task(world.plugin.coalesce(world.sr))
    await slow.commit()
    uri = (await world.plugin.volume.stat(world.sr, the_disk(world))).uri[0]
    await asyncio.wait_for(world.plugin.datapath.activate_readonly(uri, READER), 5)
    assert await merging == 0
    assert world.plugin.coalescing(world.sr).waiting == 1
    await world.check()
    await world.plugin.datapath.deactivate(uri, READER)
    assert await world.plugin.coalesce(world.sr) == 1
    await world.check()


async def test_another_host_makes_a_merge_stop(world: World, slow: Slow) -> None:
    elsewhere = file_plugin()
    sr = await elsewhere.sr.attach(SR, {"location": str(world.scratch / "sr")}, HOST_B)
    merging = asyncio.create_task(world.plugin.coalesce(world.sr))
    await slow.commit()
    assert await elsewhere.coalesce(sr) == 0  # one host at a time
    uri = (await elsewhere.volume.stat(sr, the_disk(world))).uri[0]
    await asyncio.wait_for(elsewhere.datapath.activate(uri, Domain(host=HOST_B, dp="vbd/vm/0")), 5)
    assert await merging == 0
    await elsewhere.datapath.deactivate(uri, Domain(host=HOST_B, dp="vbd/vm/0"))
    assert await elsewhere.coalesce(sr) == 1
    await elsewhere.close()
    await world.check()


async def test_a_disk_that_is_being_merged_can_be_branched_grown_and_destroyed(world: World, slow: Slow) -> None:
    disk = the_disk(world)
    for work in (world.snapshot, world.clone, world.resize):
        slow.slow.touch()
        merging = asyncio.create_task(world.plugin.coalesce(world.sr))
        pid = await slow.commit()
        await asyncio.wait_for(work(disk), 5)
        if work != world.resize:  # which makes it stop
            os.kill(pid, signal.SIGKILL)
        await merging
        await world.check()
        for key in set(world.disks) - {disk}:
            await world.destroy(key)
        await world.write(disk)
        await world.destroy(await world.snapshot(disk))
    slow.slow.touch()
    merging = asyncio.create_task(world.plugin.coalesce(world.sr))
    await slow.commit()
    await asyncio.wait_for(world.destroy(disk), 5)
    await merging
    await world.check()


async def test_a_killed_qemu_img_loses_nothing_and_the_merge_is_done_later(world: World, slow: Slow) -> None:
    merging = asyncio.create_task(world.plugin.coalesce(world.sr))
    os.kill(await slow.commit(), signal.SIGKILL)
    assert await merging == 0
    assert "qemu-img commit" in world.plugin.coalescing(world.sr).failed
    await world.check()
    assert await world.plugin.coalesce(world.sr) == 1
    await world.check()


async def test_what_a_host_that_died_was_merging_keeps_nobody_waiting(world: World, slow: Slow) -> None:
    merging = asyncio.create_task(world.plugin.coalesce(world.sr))
    await slow.commit()
    record = world.scratch / "sr" / ".leases" / "merging"
    left = await asyncio.to_thread(record.read_bytes)
    merging.cancel()
    await asyncio.wait({merging})
    await asyncio.to_thread(record.write_bytes, left)  # as if it had been killed
    uri = (await world.plugin.volume.stat(world.sr, the_disk(world))).uri[0]
    await asyncio.wait_for(world.plugin.datapath.activate_readonly(uri, READER), 5)
    await world.plugin.datapath.deactivate(uri, READER)
    assert await world.plugin.coalesce(world.sr) == 1


async def test_who_completes_a_dead_host_s_merge_does_not_wait_for_one_who_waits_for_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who grows a disk has the SR's lock, and waits until nobody merges the disk's images."""
    elsewhere, disk = file_plugin(lock_timeout=30.0), the_disk(world)
    sr = await elsewhere.sr.attach(SR, {"location": str(world.scratch / "sr")}, HOST_B)
    folder = elsewhere.attached(sr).folder
    top, base, *_ = await asyncio.to_thread(folder.chain, disk)
    left = records.Merging(host=HOST_B, top=top, base=base, above=top, dp="vbd/vm/0", disk=disk)
    await asyncio.to_thread(records.begin, folder, left)
    completed = asyncio.Event()
    monkeypatch.setattr(records, "is_alive", lambda folder: not completed.is_set())
    growing = asyncio.create_task(elsewhere.volume.resize(sr, disk, 16 * CLUSTER))
    while not await asyncio.to_thread(records.is_asked_to_stop, folder):
        assert not growing.done()
    assert await asyncio.wait_for(world.plugin.coalesce(world.sr), 4) == 0
    completed.set()
    assert (await growing).virtual_size == 16 * CLUSTER
    await elsewhere.close()


async def test_images_are_merged_by_themselves_soon_after_a_change(world: World, slow: Slow) -> None:
    slow.slow.unlink()  # none of them
    quick = Coalescing(delay=0.01)
    plugin = FilePlugin(QemuImg("qemu-img", 60.0), 5.0, coalescing=quick)
    sr = await plugin.sr.attach(SR, {"location": str(world.scratch / "sr")}, HOST_A)
    for _ in range(1000):
        if plugin.coalescing(sr).merged:
            break
        await asyncio.sleep(0.01)
    assert plugin.coalescing(sr).merged == 1
    await plugin.close()
    await world.check()


@dataclass
class Listener:
    events: list[Merge]

    def heard(self, event: Merge, status: Status) -> None:
        self.events.append(event)


async def test_who_listens_is_told_of_each_merge_and_how_it_ends(world: World, slow: Slow, tmp_path: Path) -> None:
    listener = Listener([])
    plugin = FilePlugin(QemuImg(str(slow.program), 60.0), 5.0, audience=listener)
    sr = await plugin.sr.attach(SR, {"location": str(tmp_path / "sr")}, HOST_A)
    merging = asyncio.create_task(plugin.coalesce(sr))
    await slow.commit()
    uri = (await plugin.volume.stat(sr, the_disk(world))).uri[0]
    await plugin.datapath.activate_readonly(uri, READER)
    await merging
    await plugin.datapath.deactivate(uri, READER)
    program = await asyncio.to_thread(slow.program.read_text)
    await asyncio.to_thread(slow.program.write_text, "#!/bin/sh\necho no luck >&2\nexit 1\n")
    await plugin.coalesce(sr)
    await asyncio.to_thread(slow.program.write_text, program)
    await plugin.coalesce(sr)
    await plugin.sr.detach(sr)
    await plugin.close()
    told = [each.event for each in listener.events]
    assert told == ["idle", "begin", "stopped", "begin", "failed", "begin", "end", "idle", "idle"]
    failed = listener.events[4]
    assert (failed.host, failed.sr, failed.how) == (HOST_A, SR, "offline")
    assert failed.top
    assert failed.base
    assert "no luck" in failed.why


def test_what_is_merged_is_decided_by_who_has_the_images_open() -> None:
    tree = Tree(
        [Image("low", ""), Image("middle", "low"), Image("top", "middle")], [Disk("disk", "top", writable=True)]
    )

    def steps(*holders: Holder) -> list[str]:
        return [f"{step.how} {step.merge.top}" for step in choose(tree, holders, HOST_A)[0]]

    vm = Holder(key="disk", host=HOST_A, dp="vbd/vm/0", writes=True)
    reader = Holder(key="disk", host=HOST_A, dp="nbd/reader", writes=False)
    elsewhere = Holder(key="disk", host=HOST_B, dp="vbd/vm/0", writes=True)
    assert steps() == ["offline middle", "offline top"]
    assert steps(vm) == ["online middle", "leaf top"]
    assert steps(reader) == []
    assert steps(elsewhere) == []
    assert choose(tree, [elsewhere], HOST_A)[1] == 2
