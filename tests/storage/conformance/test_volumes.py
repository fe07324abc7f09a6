"""Disks: made, branched, grown, deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from services.storage.plugins.interface import Handle, NewVolume, Plugin, Unimplemented, Volume
from shared.errors import ApiError
from tests.storage.conformance.conftest import Service
from tests.storage.conformance.entry import Entry
from tests.storage.conformance.needs import needs
from tests.storage.support import HOST_A, MIB, SR, new, new_uuid

HOSTILE = [
    "",
    ".",
    "..",
    ".sr",
    "../../etc/passwd",
    "a/b",
    "$(reboot)",
    "-rf",
    "no-such-disk",
    "a\0b",
    "a\nb",
    "é" * 300,
]


async def nowhere(_: float) -> None:
    """A report that nobody reads."""


async def test_a_disk_is_listed_as_it_is_looked_up(plugin: Plugin, sr: Handle, volume: Volume) -> None:
    assert volume.virtual_size == MIB
    assert volume.uuid
    assert volume.uri
    assert await plugin.volume.stat(sr, volume.key) == volume
    assert await plugin.sr.ls(sr) == [volume]


@needs("create", "names")
async def test_a_disk_is_what_was_asked_for(plugin: Plugin, sr: Handle, entry: Entry) -> None:
    keys = {"vdi-type": "system", "_sm_config_x": "1"}
    wanted = NewVolume(uuid=new_uuid(), name="rööt; reboot\n", description="<disk>", keys=keys)
    made = await plugin.volume.create(sr, wanted, 3 * MIB)
    assert (made.name, made.description) == (wanted.name, wanted.description)
    assert made.uuid == wanted.uuid or "uuids" not in entry.traits
    assert keys.items() <= made.keys.items()
    assert made.virtual_size == 3 * MIB
    assert made.read_write
    assert await plugin.volume.stat(sr, made.key) == made
    assert await plugin.sr.ls(sr) == [made]


@needs("create", "repeat")
async def test_creating_a_disk_again_finds_the_first_one(plugin: Plugin, sr: Handle) -> None:
    wanted = new()
    assert await plugin.volume.create(sr, wanted, MIB) == await plugin.volume.create(sr, wanted, MIB)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_43"):
        await plugin.volume.create(sr, wanted, 2 * MIB)


@needs("create")
@pytest.mark.parametrize("size", [0, -1])
async def test_a_disk_without_size_is_refused(plugin: Plugin, sr: Handle, size: int) -> None:
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_79"):
        await plugin.volume.create(sr, new(), size)
    assert await plugin.sr.ls(sr) == []


@needs("create", "clone", "snapshot")
async def test_a_clone_can_be_written_and_a_snapshot_cannot(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new("golden"), MIB)
    clone = await plugin.volume.clone(sr, source.key, new())
    snapshot = await plugin.volume.snapshot(sr, source.key, new())
    assert (clone.read_write, snapshot.read_write) == (True, False)
    assert clone.virtual_size == snapshot.virtual_size == MIB
    listed = {volume.key for volume in await plugin.sr.ls(sr)}
    assert listed == {source.key, clone.key, snapshot.key}


@needs("clone", "snapshot", "names")
async def test_a_branch_is_called_as_asked_or_as_its_source(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new("golden"), MIB)
    assert (await plugin.volume.clone(sr, source.key, new())).name == "golden"
    assert (await plugin.volume.snapshot(sr, source.key, new("before"))).name == "before"


@needs("clone", "repeat")
async def test_branching_again_finds_the_first_branch(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new(), MIB)
    wanted = new()
    first = await plugin.volume.clone(sr, source.key, wanted)
    assert (await plugin.volume.clone(sr, source.key, wanted)).key == first.key
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_43"):
        await plugin.volume.snapshot(sr, source.key, wanted)
    assert len(await plugin.sr.ls(sr)) == 2


@needs("copy")
async def test_a_copy_reports_its_progress(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new(), MIB)
    told: list[float] = []

    async def report(progress: float) -> None:
        told.append(progress)

    copy = await plugin.volume.copy(sr, source.key, new(), report)
    assert copy.read_write
    assert copy.virtual_size == MIB
    assert told[-1] == 1.0


@needs("create", "destroy", "clone", "snapshot")
async def test_destroyed_disks_are_gone_whatever_was_made_from_them(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new(), MIB)
    clone = await plugin.volume.clone(sr, source.key, new())
    snapshot = await plugin.volume.snapshot(sr, clone.key, new())
    grandchild = await plugin.volume.clone(sr, snapshot.key, new())
    for volume in (snapshot, source, clone, grandchild):
        await plugin.volume.destroy(sr, volume.key)
        with pytest.raises(ApiError, match="VDI_MISSING"):
            await plugin.volume.stat(sr, volume.key)
        with pytest.raises(ApiError, match="VDI_MISSING"):
            await plugin.volume.destroy(sr, volume.key)
    assert await plugin.sr.ls(sr) == []


@needs("create", "resize")
async def test_a_disk_grows_and_never_shrinks(plugin: Plugin, sr: Handle) -> None:
    volume = await plugin.volume.create(sr, new(), 2 * MIB)
    for _ in range(2):
        assert (await plugin.volume.resize(sr, volume.key, 3 * MIB)).virtual_size == 3 * MIB
    assert (await plugin.volume.stat(sr, volume.key)).virtual_size == 3 * MIB
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_79"):
        await plugin.volume.resize(sr, volume.key, MIB)


@needs("snapshot", "resize")
async def test_a_snapshot_does_not_grow(plugin: Plugin, sr: Handle) -> None:
    volume = await plugin.volume.create(sr, new(), 2 * MIB)
    snapshot = await plugin.volume.snapshot(sr, volume.key, new())
    with pytest.raises(ApiError, match="VDI_READONLY"):
        await plugin.volume.resize(sr, snapshot.key, 4 * MIB)


@needs("snapshot", "revert")
async def test_a_reverted_disk_keeps_its_key_and_its_snapshot(plugin: Plugin, sr: Handle) -> None:
    volume = await plugin.volume.create(sr, new("disk"), MIB)
    snapshot = await plugin.volume.snapshot(sr, volume.key, new("before"))
    if "VDI_RESIZE" in plugin.query().features:
        await plugin.volume.resize(sr, volume.key, 2 * MIB)
    reverted = await plugin.volume.revert(sr, snapshot.key, volume.key)
    assert (reverted.key, reverted.uuid, reverted.name) == (volume.key, volume.uuid, volume.name)
    assert reverted.virtual_size == MIB
    assert reverted.read_write
    assert {found.key for found in await plugin.sr.ls(sr)} == {volume.key, snapshot.key}


async def test_an_unknown_disk_is_missing_whatever_it_is_called(plugin: Plugin, sr: Handle) -> None:
    for key in HOSTILE:
        with pytest.raises(ApiError, match="VDI_MISSING") as error:
            await plugin.volume.stat(sr, key)
        assert error.value.params == [SR, key]


@needs("destroy", "clone", "snapshot", "copy", "resize")
async def test_nothing_is_done_to_an_unknown_disk(plugin: Plugin, sr: Handle) -> None:
    for key in HOSTILE[::3]:
        for work in (
            plugin.volume.destroy(sr, key),
            plugin.volume.clone(sr, key, new()),
            plugin.volume.snapshot(sr, key, new()),
            plugin.volume.copy(sr, key, new(), nowhere),
            plugin.volume.resize(sr, key, MIB),
        ):
            with pytest.raises(ApiError, match="VDI_MISSING"):
                await work


@needs("introduce")
async def test_a_disk_that_is_there_can_be_introduced_and_one_that_is_not_cannot(
    plugin: Plugin, sr: Handle, volume: Volume
) -> None:
    introduced = await plugin.volume.introduce(sr, new_uuid(), volume.key, {})
    assert (introduced.key, introduced.virtual_size) == (volume.key, volume.virtual_size)
    with pytest.raises(ApiError, match="VDI_MISSING"):
        await plugin.volume.introduce(sr, new_uuid(), "no-such-disk", {})


async def test_what_a_type_lacks_it_refuses_as_unimplemented(plugin: Plugin, sr: Handle, entry: Entry) -> None:
    """Callers have another way for it, or an error of their own."""
    lacking: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: plugin.volume.create(sr, new(), MIB),
        "clone": lambda: plugin.volume.clone(sr, "key", new()),
        "snapshot": lambda: plugin.volume.snapshot(sr, "key", new()),
        "resize": lambda: plugin.volume.resize(sr, "key", MIB),
        "destroy": lambda: plugin.volume.destroy(sr, "key"),
        "copy": lambda: plugin.volume.copy(sr, "key", new(), nowhere),
    }
    for trait, work in lacking.items():
        if trait not in entry.traits:
            with pytest.raises(Unimplemented):
                await work()


@needs("create", "destroy", "clone", "repeat")
async def test_a_request_that_a_crash_interrupted_may_be_repeated(service: Service, sr: Handle) -> None:
    """The last step is asked for again, of a service that does not know whether it was done."""
    disk, branch = new(), new()
    first = await service.plugin.volume.create(sr, disk, MIB)
    plugin = await service.again()
    handle = service.attached[HOST_A]
    assert await plugin.volume.create(handle, disk, MIB) == first
    clone = await plugin.volume.clone(handle, first.key, branch)
    plugin = await service.again()
    handle = service.attached[HOST_A]
    assert await plugin.volume.clone(handle, first.key, branch) == clone
    await plugin.volume.destroy(handle, clone.key)
    plugin = await service.again()
    handle = service.attached[HOST_A]
    assert [found.key for found in await plugin.sr.ls(handle)] == [first.key]
