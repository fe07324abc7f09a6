"""The SR type `udev`: devices that are plugged in and pulled out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.storage.plugins.interface import Domain, Handle
from services.storage.plugins.program import run
from services.storage.plugins.udev import UdevPlugin
from shared.errors import ApiError
from tests.storage.conformance.loops import Loop, loop_device
from tests.storage.support import HOST_A, HOST_B, MIB, SR

VM = Domain(host=HOST_A, dp="vbd/vm/4")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with loop_device(tmp_path / "device", 3 * MIB) as made:
        yield made


@pytest.fixture
def links(tmp_path: Path) -> Path:
    return tmp_path / "links"


@pytest.fixture
def plugin() -> UdevPlugin:
    return UdevPlugin()


@pytest.fixture
async def sr(plugin: UdevPlugin, links: Path) -> Handle:
    return await plugin.sr.attach(SR, await plugin.sr.create(SR, {"location": str(links)}, "", ""), HOST_A)


async def test_scans_follow_what_is_plugged_in(plugin: UdevPlugin, sr: Handle, links: Path, loop: Loop) -> None:
    assert await plugin.sr.ls(sr) == []  # before the first device there is no folder
    os.mkdir(links)
    os.symlink(loop.path, links / "stick")
    (found,) = await plugin.sr.ls(sr)
    assert (found.key, found.virtual_size, found.read_write) == (str(links / "stick"), 3 * MIB, True)
    assert "_sm_config_hotplugged_at" in found.keys
    assert (await plugin.sr.stat(sr)).total_space == 3 * MIB
    os.unlink(links / "stick")
    assert await plugin.sr.ls(sr) == []
    with pytest.raises(ApiError, match="VDI_MISSING"):
        await plugin.volume.stat(sr, found.key)


async def test_a_vm_gets_the_device_and_not_the_link(plugin: UdevPlugin, sr: Handle, links: Path, loop: Loop) -> None:
    os.mkdir(links)
    os.symlink(loop.path, links / "stick")
    (found,) = await plugin.sr.ls(sr)
    backend = await plugin.datapath.attach(found.uri[0], VM)
    assert (backend.kind, backend.path, backend.format) == ("block", loop.path, "raw")


async def test_a_device_that_cannot_be_written_is_a_disk_that_cannot(
    plugin: UdevPlugin, sr: Handle, links: Path, loop: Loop
) -> None:
    os.mkdir(links)
    os.symlink(loop.path, links / "stick")
    await run(["blockdev", "--setro", loop.path])
    (found,) = await plugin.sr.ls(sr)
    assert not found.read_write
    with pytest.raises(ApiError, match="VDI_READONLY"):
        await plugin.datapath.activate(found.uri[0], VM)


async def test_only_block_devices_in_the_folder_are_disks(
    plugin: UdevPlugin, sr: Handle, links: Path, loop: Loop
) -> None:
    os.mkdir(links)
    os.symlink("/dev/zero", links / "zero")
    os.symlink("/etc/passwd", links / "file")
    os.symlink("/nowhere", links / "broken")
    os.symlink(loop.path, links / "line\nbreak")
    assert await plugin.sr.ls(sr) == []
    for key in (loop.path, f"{links}/../{loop.path}", f"{links}/..", f"{links}/line\nbreak", "stick"):
        with pytest.raises(ApiError, match="VDI_MISSING"):
            await plugin.volume.stat(sr, key)


async def test_a_device_that_was_pulled_out_can_be_let_go_of(
    plugin: UdevPlugin, sr: Handle, links: Path, loop: Loop
) -> None:
    os.mkdir(links)
    os.symlink(loop.path, links / "stick")
    (found,) = await plugin.sr.ls(sr)
    await plugin.datapath.activate(found.uri[0], VM)
    os.unlink(links / "stick")
    await plugin.datapath.deactivate(found.uri[0], VM)
    await plugin.datapath.detach(found.uri[0], VM)
    assert await plugin.datapath.held(sr) == []


async def test_hosts_of_one_process_do_not_both_write(plugin: UdevPlugin, sr: Handle, links: Path, loop: Loop) -> None:
    os.mkdir(links)
    os.symlink(loop.path, links / "stick")
    await plugin.sr.attach(SR, {"location": str(links)}, HOST_B)
    (found,) = await plugin.sr.ls(sr)
    other = Domain(host=HOST_B, dp="vbd/other/4")
    await plugin.datapath.activate(found.uri[0], other)
    with pytest.raises(Exception, match="activated on host"):
        await plugin.datapath.activate(found.uri[0], VM)
    assert await plugin.datapath.fence(sr, HOST_B) == 1
    await plugin.datapath.activate(found.uri[0], VM)
