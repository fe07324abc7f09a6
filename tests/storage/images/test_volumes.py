"""What disks can besides branching: resets, composing, comparing, being described."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.plugins.file import qcow2
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, NewVolume, Range, Unimplemented
from shared.errors import ApiError
from tests.storage.images.world import CLUSTER, World, content, write_image
from tests.storage.support import HOST_A, HOST_B, SR, file_plugin, new

SIZE = 16 * CLUSTER
VM = "vm"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    plugin = file_plugin()
    configuration = await plugin.sr.create(SR, {"location": str(tmp_path / "sr")}, "", "")
    yield World(plugin, await plugin.sr.attach(SR, configuration, HOST_A), tmp_path, random.Random(3))
    await plugin.close()


async def put(world: World, key: str, cluster: int, value: int) -> None:
    await write_image(await world.image(key), [(cluster * CLUSTER, CLUSTER, value)])
    world.note_writes(key, [(cluster * CLUSTER, CLUSTER, value)])


async def begin(world: World, key: str, *, persistent: bool) -> None:
    await world.plugin.volume.epoch(world.sr, key, VM, True, persistent)


async def test_a_disk_that_forgets_begins_each_run_with_what_it_was(world: World) -> None:
    disk = await world.create(SIZE)
    await put(world, disk, 0, 1)
    for value in (2, 3):
        await begin(world, disk, persistent=False)
        await world.check()
        await write_image(await world.image(disk), [(0, CLUSTER, value)])
        assert (await content(await world.image(disk), world.scratch))[0] == value
        await world.plugin.volume.epoch(world.sr, disk, VM, False, False)
        await world.plugin.coalesce(world.sr)
    await begin(world, disk, persistent=True)
    world.note_writes(disk, [(0, CLUSTER, 3)])
    await world.plugin.coalesce(world.sr)
    await world.check()
    await begin(world, disk, persistent=True)
    await world.check()


async def test_a_disk_that_is_activated_is_not_reset(world: World) -> None:
    disk = await world.create(SIZE)
    uri = (await world.plugin.volume.stat(world.sr, disk)).uri[0]
    await world.plugin.datapath.activate(uri, Domain(host=HOST_A, dp="vbd/vm/0"))
    with pytest.raises(ActivatedOnAnotherHost):
        await begin(world, disk, persistent=False)


async def test_a_composed_disk_has_its_own_blocks_over_the_other_s(world: World) -> None:
    parent, child = await world.create(SIZE), await world.create(SIZE)
    await put(world, parent, 0, 1)
    await put(world, parent, 1, 2)
    await put(world, child, 1, 3)
    snapshot = await world.snapshot(parent)
    for _ in range(2):
        await world.plugin.volume.compose(world.sr, child, parent)
    world.note_writes(child, [(0, CLUSTER, 1)])
    world.gone(parent)
    await world.check()
    await world.destroy(snapshot)
    await world.plugin.coalesce(world.sr)
    await world.check()


async def test_the_images_of_other_disks_are_not_composed_with_anything(world: World) -> None:
    parent, child = await world.create(SIZE), await world.create(SIZE)
    await put(world, child, 0, 1)
    await world.snapshot(child)
    with pytest.raises(ApiError, match="other disks"):
        await world.plugin.volume.compose(world.sr, child, parent)
    await world.check()


async def test_disks_of_one_tree_are_compared_by_the_images_they_do_not_share(world: World) -> None:
    disk, other = await world.create(SIZE), await world.create(SIZE)
    await put(world, disk, 0, 1)
    first = await world.snapshot(disk)
    await put(world, disk, 2, 2)
    await put(world, disk, 3, 2)
    clone = await world.clone(first)
    await put(world, clone, 9, 3)
    compare = world.plugin.volume.compare
    assert await compare(world.sr, disk, first) == [Range(2 * CLUSTER, 2 * CLUSTER)]
    assert await compare(world.sr, disk, clone) == [Range(2 * CLUSTER, 2 * CLUSTER), Range(9 * CLUSTER, CLUSTER)]
    assert await compare(world.sr, disk, disk) == []
    with pytest.raises(Unimplemented):
        await compare(world.sr, disk, other)


async def test_similar_disks_are_listed_nearest_first(world: World) -> None:
    disk, other = await world.create(SIZE), await world.create(SIZE)
    await put(world, disk, 0, 1)
    first = await world.snapshot(disk)
    await put(world, disk, 1, 1)
    second = await world.snapshot(disk)
    await put(world, disk, 2, 1)
    found = [volume.key for volume in await world.plugin.volume.similar_content(world.sr, disk)]
    assert found == [second, first]
    assert await world.plugin.volume.similar_content(world.sr, other) == []


async def test_what_is_said_of_a_disk_stays_said(world: World) -> None:
    disk = await world.create(SIZE)
    await world.plugin.volume.describe(world.sr, disk, "name", None)
    await world.plugin.volume.describe(world.sr, disk, None, "description")
    await world.plugin.volume.set(world.sr, disk, {"vdi-type": "user", "content_id": "1", "x": "y"})
    await world.plugin.volume.set(world.sr, disk, {"content_id": "2", "x": None})
    again = await world.plugin.sr.attach(SR, {"location": str(world.scratch / "sr")}, HOST_B)
    found = await world.plugin.volume.stat(again, disk)
    assert (found.name, found.description) == ("name", "description")
    assert found.keys == {"vdi-type": "user", "content_id": "2"}


async def test_a_snapshot_says_what_it_is_of_and_a_clone_of_it_is_none(world: World) -> None:
    disk = await world.create(SIZE)
    snapshot = await world.plugin.volume.snapshot(world.sr, disk, new())
    assert (snapshot.keys["is_a_snapshot"], snapshot.keys["snapshot_of"]) == ("true", disk)
    assert snapshot.keys["snapshot_time"]
    clone = await world.plugin.volume.clone(world.sr, snapshot.key, new())
    assert not {"is_a_snapshot", "snapshot_of", "snapshot_time"} & set(clone.keys)


async def test_a_disk_named_as_one_that_left_its_image_gets_another_image(world: World) -> None:
    disk = await world.create(SIZE)
    await put(world, disk, 0, 1)
    await world.snapshot(disk)
    await world.destroy(disk)
    made = await world.plugin.volume.create(world.sr, NewVolume(uuid=disk), SIZE)
    world.added(made, bytes(SIZE), writable=True)
    await world.check()
    await put(world, disk, 5, 5)
    await world.check()


async def test_folders_of_the_first_version_are_read(world: World) -> None:
    """A hidden image had a sidecar too, and disks had the images of their own names."""
    folder = world.plugin.attached(world.sr).folder
    disk = await world.create(SIZE)
    await put(world, disk, 0, 1)
    old = folder.path / "node.qcow2"
    folder.image(disk).rename(old)
    (folder.path / "node.json").write_text('{"uuid": "node", "hidden": true, "read_only": true}')
    qcow2.create(folder.image(disk), SIZE, "node.qcow2")
    await world.check()
    await world.plugin.coalesce(world.sr)
    await world.check()
