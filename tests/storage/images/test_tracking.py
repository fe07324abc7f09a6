"""Changed blocks: what is told, and when nothing can be told."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.plugins.file.changes import BLOCK, Bitmap
from services.storage.plugins.interface import Domain
from shared.errors import ApiError
from tests.storage.images.world import World, content, write_image
from tests.storage.support import HOST_A, SR, file_plugin

SIZE = 32 * BLOCK


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    plugin = file_plugin()
    configuration = await plugin.sr.create(SR, {"location": str(tmp_path / "sr")}, "", "")
    yield World(plugin, await plugin.sr.attach(SR, configuration, HOST_A), tmp_path, random.Random(3))
    await plugin.close()


async def put(world: World, key: str, *blocks: int, value: int = 1) -> None:
    writes = [(block * BLOCK, 512, value) for block in blocks]
    await write_image(await world.image(key), writes)
    world.note_writes(key, writes)


async def told(world: World, older: str, later: str) -> list[int]:
    found = await world.plugin.volume.changed_blocks(world.sr, older, later)
    assert found.granularity == BLOCK
    return [at for at in range(8 * len(found.bitmap)) if found.bitmap[at // 8] >> 7 - at % 8 & 1]


async def test_exactly_what_was_written_between_two_snapshots_is_told(world: World) -> None:
    disk = await world.create(SIZE)
    await put(world, disk, 0, 1)
    await world.track(disk)
    first = await world.snapshot(disk)
    await put(world, disk, 2, 31)
    second = await world.snapshot(disk)
    await put(world, disk, 7)
    assert await told(world, first, second) == [2, 31]
    assert await told(world, second, disk) == [7]
    assert await told(world, first, disk) == [2, 7, 31]


async def test_changes_outlive_the_data_of_snapshots_and_snapshots(world: World) -> None:
    disk = await world.create(SIZE)
    await world.track(disk)
    first, second, third = "", "", ""
    first = await world.snapshot(disk)
    await put(world, disk, 3)
    second = await world.snapshot(disk)
    await put(world, disk, 4)
    third = await world.snapshot(disk)
    await put(world, disk, 5)
    for key in (first, second, first):
        await world.plugin.volume.data_destroy(world.sr, key)
    await world.plugin.coalesce(world.sr)
    listed = {volume.key: volume for volume in await world.plugin.sr.ls(world.sr)}
    assert listed[first].keys["vdi-type"] == "cbt_metadata"
    assert (listed[first].virtual_size, listed[first].physical_utilisation) == (SIZE, 0)
    assert await told(world, first, third) == [3, 4]
    await world.destroy(second)
    await world.plugin.coalesce(world.sr)
    assert await told(world, first, third) == [3, 4]
    assert await told(world, first, disk) == [3, 4, 5]
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_65"):
        await world.image(first)


async def test_what_a_merged_image_told_is_not_forgotten(world: World) -> None:
    """A clone divides what was written since a snapshot into two images; deleted, it leaves them to be merged."""
    disk = await world.create(SIZE)
    await world.track(disk)
    snapshot = await world.snapshot(disk)
    await put(world, disk, 10)
    clone = await world.clone(disk)
    await put(world, disk, 11)
    await world.plugin.volume.data_destroy(world.sr, snapshot)
    await world.destroy(clone)
    assert await world.plugin.coalesce(world.sr) > 0
    assert await told(world, snapshot, disk) == [10, 11]
    assert await content(await world.image(disk), world.scratch) == world.disks[disk]


async def test_the_image_that_tells_what_changed_is_kept_apart(world: World) -> None:
    disk = await world.create(SIZE)
    await put(world, disk, 0)
    await world.track(disk)
    await world.plugin.volume.data_destroy(world.sr, await world.snapshot(disk))
    await put(world, disk, 1)
    assert await world.plugin.coalesce(world.sr) == 0
    await world.plugin.volume.disable_cbt(world.sr, disk)
    assert await world.plugin.coalesce(world.sr) == 1


async def test_what_is_beyond_an_older_disk_s_end_is_told_as_it_was_written(world: World) -> None:
    disk = await world.create(SIZE)
    await world.track(disk)
    snapshot = await world.snapshot(disk)
    await world.plugin.volume.resize(world.sr, disk, 2 * SIZE)
    world.disks[disk].extend(bytes(SIZE))
    await put(world, disk, 40)
    assert await told(world, snapshot, disk) == [40]
    larger = await world.snapshot(disk)
    await world.revert(snapshot, disk)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_460"):
        await told(world, larger, disk)


async def test_a_reverted_disk_continues_its_snapshot(world: World) -> None:
    disk = await world.create(SIZE)
    await world.track(disk)
    first = await world.snapshot(disk)
    await put(world, disk, 1)
    second = await world.snapshot(disk)
    await put(world, disk, 2)
    await world.plugin.volume.revert(world.sr, first, disk)
    world.disks[disk] = bytearray(world.disks[first])
    await put(world, disk, 3)
    assert await told(world, first, disk) == [3]
    assert await told(world, first, second) == [1]
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_460"):
        await told(world, second, disk)


async def test_nothing_is_told_of_disks_that_are_not_related_or_not_tracked(world: World) -> None:
    disk, other = await world.create(SIZE), await world.create(SIZE)
    await world.track(disk)
    snapshot = await world.snapshot(disk)
    for older, later in ((disk, disk), (snapshot, other), (other, disk), (disk, snapshot)):
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_460"):
            await told(world, older, later)
    await world.track(other)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_460"):
        await told(world, snapshot, other)
    clone = await world.plugin.volume.stat(world.sr, await world.clone(disk))
    assert not clone.cbt_enabled
    assert (await world.plugin.volume.stat(world.sr, snapshot)).cbt_enabled
    small = await world.create(BLOCK)
    await world.track(small)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_459"):
        await told(world, snapshot, small)


async def test_nothing_is_told_of_a_disk_while_it_is_written_to(world: World) -> None:
    """Its hypervisor keeps in memory what its image does not say yet."""
    disk = await world.create(SIZE)
    await world.track(disk)
    snapshot = await world.snapshot(disk)
    uri = (await world.plugin.volume.stat(world.sr, disk)).uri[0]
    await world.plugin.datapath.activate(uri, Domain(host=HOST_A, dp="vbd/vm/0"))
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await told(world, snapshot, disk)


def test_bits_are_set_for_every_block_that_a_range_touches() -> None:
    for size, ranges, bits in (
        (9 * BLOCK, [(0, 1)], "100000000"),
        (9 * BLOCK, [(BLOCK - 1, 2)], "110000000"),
        (9 * BLOCK, [(7 * BLOCK, 2 * BLOCK)], "000000011"),
        (9 * BLOCK, [(0, 99 * BLOCK)], "111111111"),
        (9 * BLOCK, [(9 * BLOCK, BLOCK)], "000000000"),
        (20 * BLOCK + 1, [(3 * BLOCK, 15 * BLOCK)], "000111111111111111000"),
    ):
        bitmap = Bitmap(size)
        for offset, length in ranges:
            bitmap.add(offset, length)
        found = "".join(f"{byte:08b}" for byte in bytes(bitmap))
        assert found == bits.ljust(len(found), "0")
