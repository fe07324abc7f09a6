"""What every plug-in must do, run on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.storage.journal import Journal
from services.storage.plugins.dummy import DummyPlugin
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, Handle, NewVolume, Plugin
from shared.errors import ApiError
from tests.storage.support import HOST_A, HOST_B, MIB, SR, file_plugin, new, new_uuid

MakePlugin = Callable[[Path], Plugin]
PLUGINS: dict[str, MakePlugin] = {
    "file": lambda _: file_plugin(),
    "dummy": lambda folder: DummyPlugin(Journal(folder / "dummy")),
}


@pytest.fixture(params=PLUGINS)
async def plugin(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Plugin]:
    made = PLUGINS[request.param](tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def configuration(plugin: Plugin, tmp_path: Path) -> dict[str, str]:
    return await plugin.sr.create(SR, {"location": str(tmp_path / "sr")}, "name", "description")


@pytest.fixture
async def sr(plugin: Plugin, configuration: dict[str, str]) -> Handle:
    return await plugin.sr.attach(SR, configuration, HOST_A)


@pytest.fixture
async def elsewhere(plugin: Plugin, configuration: dict[str, str]) -> Handle:
    """The same SR on another host."""
    return await plugin.sr.attach(SR, configuration, HOST_B)


VM = Domain(host=HOST_A, dp="vbd/vm/0")
OTHER_VM = Domain(host=HOST_B, dp="vbd/other/0")


async def test_it_says_what_it_is(plugin: Plugin) -> None:
    info = plugin.query()
    assert info.type
    assert info.required_api_version == "5.0"
    assert {"VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE"} <= set(info.features)


async def test_creating_an_sr_again_and_attaching_it_again_changes_nothing(
    plugin: Plugin, configuration: dict[str, str], sr: Handle
) -> None:
    volume = await plugin.volume.create(sr, new(), MIB)
    await plugin.sr.create(SR, configuration, "name", "description")
    again = await plugin.sr.attach(SR, configuration, HOST_A)
    assert [v.key for v in await plugin.sr.ls(again)] == [volume.key]
    await plugin.sr.detach(again)
    await plugin.sr.detach(again)


async def test_an_sr_has_room(plugin: Plugin, sr: Handle) -> None:
    stat = await plugin.sr.stat(sr)
    assert stat.uuid == SR
    assert 0 < stat.free_space <= stat.total_space


async def test_a_disk_is_what_was_asked_for(plugin: Plugin, sr: Handle) -> None:
    wanted = NewVolume(uuid=new_uuid(), name="root", description="disk", keys={"vdi-type": "system", "x": "1"})
    made = await plugin.volume.create(sr, wanted, 3 * MIB)
    assert (made.uuid, made.name, made.description, made.keys) == (
        wanted.uuid,
        wanted.name,
        wanted.description,
        wanted.keys,
    )
    assert made.virtual_size == 3 * MIB
    assert made.read_write
    assert await plugin.volume.stat(sr, made.key) == made
    assert await plugin.sr.ls(sr) == [made]


async def test_creating_a_disk_again_finds_the_first_one(plugin: Plugin, sr: Handle) -> None:
    wanted = new()
    assert await plugin.volume.create(sr, wanted, MIB) == await plugin.volume.create(sr, wanted, MIB)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_43"):
        await plugin.volume.create(sr, wanted, 2 * MIB)


@pytest.mark.parametrize("size", [0, -1])
async def test_a_disk_without_size_is_refused(plugin: Plugin, sr: Handle, size: int) -> None:
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_79"):
        await plugin.volume.create(sr, new(), size)


async def test_a_clone_can_be_written_and_a_snapshot_cannot(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new("golden"), MIB)
    clone = await plugin.volume.clone(sr, source.key, new())
    snapshot = await plugin.volume.snapshot(sr, source.key, new("before"))
    assert (clone.read_write, snapshot.read_write) == (True, False)
    assert (clone.name, snapshot.name) == ("golden", "before")
    assert clone.virtual_size == snapshot.virtual_size == MIB
    listed = {volume.key for volume in await plugin.sr.ls(sr)}
    assert listed == {source.key, clone.key, snapshot.key}


async def test_branching_again_finds_the_first_branch(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new(), MIB)
    wanted = new()
    assert (await plugin.volume.clone(sr, source.key, wanted)).key == (
        await plugin.volume.clone(sr, source.key, wanted)
    ).key
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_43"):
        await plugin.volume.snapshot(sr, source.key, wanted)
    assert len(await plugin.sr.ls(sr)) == 2


async def test_a_copy_reports_its_progress(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new(), MIB)
    told: list[float] = []

    async def report(progress: float) -> None:
        told.append(progress)

    copy = await plugin.volume.copy(sr, source.key, new(), report)
    assert copy.read_write
    assert copy.virtual_size == MIB
    assert told[-1] == 1.0


async def test_destroyed_disks_are_gone_whatever_was_made_from_them(plugin: Plugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new(), MIB)
    clone = await plugin.volume.clone(sr, source.key, new())
    snapshot = await plugin.volume.snapshot(sr, clone.key, new())
    reverted = await plugin.volume.clone(sr, snapshot.key, new())
    for volume in (snapshot, source, clone, reverted):
        await plugin.volume.destroy(sr, volume.key)
        with pytest.raises(ApiError, match="VDI_MISSING"):
            await plugin.volume.stat(sr, volume.key)
        with pytest.raises(ApiError, match="VDI_MISSING"):
            await plugin.volume.destroy(sr, volume.key)
    assert await plugin.sr.ls(sr) == []


async def test_a_disk_grows_and_never_shrinks(plugin: Plugin, sr: Handle) -> None:
    volume = await plugin.volume.create(sr, new(), 2 * MIB)
    assert (await plugin.volume.resize(sr, volume.key, 3 * MIB)).virtual_size == 3 * MIB
    assert (await plugin.volume.resize(sr, volume.key, 3 * MIB)).virtual_size == 3 * MIB
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_79"):
        await plugin.volume.resize(sr, volume.key, MIB)
    snapshot = await plugin.volume.snapshot(sr, volume.key, new())
    with pytest.raises(ApiError, match="VDI_READONLY"):
        await plugin.volume.resize(sr, snapshot.key, 4 * MIB)


@pytest.mark.parametrize("key", ["no-such-disk", "../../etc/passwd", ".sr", "a/b", ""])
async def test_an_unknown_disk_is_missing(plugin: Plugin, sr: Handle, key: str) -> None:
    with pytest.raises(ApiError, match="VDI_MISSING") as error:
        await plugin.volume.stat(sr, key)
    assert error.value.params == [SR, key]
    with pytest.raises(ApiError, match="VDI_MISSING"):
        await plugin.volume.destroy(sr, key)
    with pytest.raises(ApiError, match="VDI_MISSING"):
        await plugin.volume.clone(sr, key, new())


async def test_every_step_of_a_datapath_may_be_repeated(plugin: Plugin, sr: Handle) -> None:
    uri = (await plugin.volume.create(sr, new(), MIB)).uri[0]
    assert await plugin.datapath.attach(uri, VM) == await plugin.datapath.attach(uri, VM)
    for _ in range(2):
        await plugin.datapath.activate(uri, VM)
    assert [(held.uri, held.dp, held.writable) for held in await plugin.datapath.held(sr)] == [(uri, VM.dp, True)]
    for _ in range(2):
        await plugin.datapath.deactivate(uri, VM)
    assert await plugin.datapath.held(sr) == []
    for _ in range(2):
        await plugin.datapath.detach(uri, VM)


async def test_two_hosts_never_both_write(plugin: Plugin, sr: Handle, elsewhere: Handle) -> None:
    uri = (await plugin.volume.create(sr, new(), MIB)).uri[0]
    await plugin.datapath.activate(uri, VM)
    with pytest.raises(ActivatedOnAnotherHost) as refused:
        await plugin.datapath.activate(uri, OTHER_VM)
    assert (refused.value.host, refused.value.dp) == (HOST_A, VM.dp)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.datapath.activate_readonly(uri, OTHER_VM)
    await plugin.datapath.deactivate(uri, OTHER_VM)  # not its own: changes nothing
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.datapath.activate(uri, OTHER_VM)
    await plugin.datapath.deactivate(uri, VM)
    await plugin.datapath.activate(uri, OTHER_VM)


async def test_hosts_read_together_and_keep_writers_out(plugin: Plugin, sr: Handle, elsewhere: Handle) -> None:
    uri = (await plugin.volume.create(sr, new(), MIB)).uri[0]
    await plugin.datapath.activate_readonly(uri, VM)
    await plugin.datapath.activate_readonly(uri, OTHER_VM)
    await plugin.datapath.deactivate(uri, VM)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.datapath.activate(uri, VM)


async def test_of_many_hosts_that_want_to_write_one_may(plugin: Plugin, configuration: dict[str, str]) -> None:
    hosts = [new_uuid() for _ in range(8)]
    for host in hosts:
        handle = await plugin.sr.attach(SR, configuration, host)
    uri = (await plugin.volume.create(handle, new(), MIB)).uri[0]
    outcomes = await asyncio.gather(
        *(plugin.datapath.activate(uri, Domain(host=host, dp="dp")) for host in hosts), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(outcome is None or isinstance(outcome, ActivatedOnAnotherHost) for outcome in outcomes)


async def test_what_a_dead_host_had_is_free_once_it_is_fenced(plugin: Plugin, sr: Handle, elsewhere: Handle) -> None:
    uri = (await plugin.volume.create(sr, new(), MIB)).uri[0]
    await plugin.datapath.activate(uri, OTHER_VM)
    assert await plugin.datapath.fence(sr, HOST_B) == 1
    await plugin.datapath.activate(uri, VM)
    assert await plugin.datapath.fence(sr, HOST_B) == 0


async def test_a_disk_in_use_is_not_destroyed_resized_or_branched(
    plugin: Plugin, sr: Handle, elsewhere: Handle
) -> None:
    volume = await plugin.volume.create(sr, new(), MIB)
    await plugin.datapath.activate(volume.uri[0], OTHER_VM)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.destroy(sr, volume.key)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.resize(sr, volume.key, 2 * MIB)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.clone(sr, volume.key, new())
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.snapshot(sr, volume.key, new())
    assert len(await plugin.sr.ls(sr)) == 1


async def test_an_sr_with_disks_is_not_destroyed(plugin: Plugin, sr: Handle) -> None:
    volume = await plugin.volume.create(sr, new(), MIB)
    with pytest.raises(ApiError, match="SR_NOT_EMPTY"):
        await plugin.sr.destroy(sr)
    await plugin.volume.destroy(sr, volume.key)
    await plugin.sr.destroy(sr)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.stat(sr)


async def test_a_probe_finds_what_was_created(plugin: Plugin, configuration: dict[str, str], sr: Handle) -> None:
    assert SR in {found.uuid for found in await plugin.sr.probe(configuration)}
