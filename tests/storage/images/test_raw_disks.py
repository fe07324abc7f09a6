"""Disks that several hosts write to at once, such as redo logs: raw, without images and without a single writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, Handle, NewVolume, Unimplemented, Volume
from tests.storage.support import HOST_A, HOST_B, MIB, SR, file_plugin

KEY = "00000000-0000-4000-8000-00000000000a"


@pytest.fixture
async def plugin() -> AsyncIterator[FilePlugin]:
    made = file_plugin()
    yield made
    await made.close()


async def attach(plugin: FilePlugin, folder: Path, host: str) -> Handle:
    configuration = await plugin.sr.create(SR, {"location": str(folder)}, "", "")
    return await plugin.sr.attach(SR, configuration, host)


async def shared_disk(plugin: FilePlugin, sr: Handle) -> Volume:
    new = NewVolume(uuid=KEY, sharable=True, keys={"vdi-type": "redo_log"})
    return await plugin.volume.create(sr, new, 64 * MIB)


async def test_each_host_writes_to_the_same_bytes(plugin: FilePlugin, tmp_path: Path) -> None:
    one, other = [await attach(plugin, tmp_path / "sr", host) for host in (HOST_A, HOST_B)]
    volume = await shared_disk(plugin, one)
    assert (volume.virtual_size, volume.sharable, volume.physical_utilisation) == (64 * MIB, True, 0)
    assert await shared_disk(plugin, one) == volume
    paths: set[Path] = set()
    for sr, host in ((one, HOST_A), (other, HOST_B)):
        [uri] = (await plugin.volume.stat(sr, KEY)).uri
        domain = Domain(host=host, dp="static/redo-log")
        found = await plugin.datapath.attach(uri, domain)
        await plugin.datapath.activate(uri, domain)
        assert (found.kind, found.format) == ("file", "raw")
        paths.add(Path(found.path))
    [path] = paths
    assert path.stat().st_size == 64 * MIB
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.destroy(one, KEY)
    for sr, host in ((one, HOST_A), (other, HOST_B)):
        [uri] = (await plugin.volume.stat(sr, KEY)).uri
        await plugin.datapath.deactivate(uri, Domain(host=host, dp="static/redo-log"))
    await plugin.volume.destroy(one, KEY)
    assert not path.exists()
    assert await plugin.sr.ls(other) == []


async def test_it_has_no_snapshots_and_is_not_mistaken_for_an_image(plugin: FilePlugin, tmp_path: Path) -> None:
    sr = await attach(plugin, tmp_path / "sr", HOST_A)
    await shared_disk(plugin, sr)
    other = NewVolume(uuid="00000000-0000-4000-8000-00000000000b")
    for work in (
        plugin.volume.snapshot(sr, KEY, other),
        plugin.volume.clone(sr, KEY, other),
        plugin.volume.copy(sr, KEY, other, _nobody),
        plugin.volume.enable_cbt(sr, KEY),
        plugin.volume.data_destroy(sr, KEY),
        plugin.volume.epoch(sr, KEY, "vm", True, False),
    ):
        with pytest.raises(Unimplemented, match="is raw"):
            await work
    assert await plugin.coalesce(sr) == 0
    [listed] = await plugin.sr.ls(sr)
    assert listed.key == KEY


async def test_it_grows_while_nobody_has_it(plugin: FilePlugin, tmp_path: Path) -> None:
    sr = await attach(plugin, tmp_path / "sr", HOST_A)
    [uri] = (await shared_disk(plugin, sr)).uri
    domain = Domain(host=HOST_A, dp="vbd/vm/0")
    path = Path((await plugin.datapath.attach(uri, domain)).path)
    await plugin.datapath.activate(uri, domain)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.resize(sr, KEY, 128 * MIB)
    await plugin.datapath.deactivate(uri, domain)
    assert (await plugin.volume.resize(sr, KEY, 128 * MIB)).virtual_size == 128 * MIB
    assert (await asyncio.to_thread(path.stat)).st_size == 128 * MIB


async def test_a_disk_of_an_earlier_version_with_images_is_not_shared(plugin: FilePlugin, tmp_path: Path) -> None:
    sr = await attach(plugin, tmp_path / "sr", HOST_A)
    made = await plugin.volume.create(sr, NewVolume(uuid=KEY), MIB)
    sidecar = tmp_path / "sr" / f"{KEY}.json"
    sidecar.write_text(sidecar.read_text().replace("{", '{"sharable": true, ', 1))
    assert await plugin.volume.stat(sr, KEY) == made
    assert not made.sharable


async def _nobody(_: float) -> None:
    """Asks how far a copy is."""


async def test_data_that_a_crash_has_left_without_a_disk_go_and_a_disk_without_data_is_gone(
    plugin: FilePlugin, tmp_path: Path
) -> None:
    folder = tmp_path / "sr"
    sr = await attach(plugin, folder, HOST_A)
    await shared_disk(plugin, sr)
    stray = folder / ".raw-00000000-0000-4000-8000-00000000000c"
    stray.touch()
    (folder / f".raw-{KEY}").unlink()
    await plugin.sr.detach(sr)
    sr = await attach(plugin, folder, HOST_A)
    assert not stray.exists()
    assert await plugin.sr.ls(sr) == []
    assert (await shared_disk(plugin, sr)).key == KEY
