"""The SR type `iso`: where images are, what names they may have, which one is the tools'."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.storage.plugins.interface import Domain, Handle
from services.storage.plugins.iso import IsoPlugin, Library, image_uuid, library_of, newest_tools, tools_keys
from services.storage.plugins.mounted_point import Mount, ensure, mounted_at
from shared.errors import ApiError
from tests.storage.support import HOST_A, HOST_B, MIB, SR

VM = Domain(host=HOST_A, dp="vbd/vm/3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    return place


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[IsoPlugin]:
    made = IsoPlugin(tmp_path / "sr-mount")
    yield made
    await made.close()


@pytest.fixture
async def sr(plugin: IsoPlugin, folder: Path) -> Handle:
    return await plugin.sr.attach(SR, {"location": str(folder), "legacy_mode": "true"}, HOST_A)


def image(folder: Path, name: str, size: int = MIB) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    ("configuration", "source"),
    [
        ({"location": "filer:/isos"}, "filer:/isos"),
        ({"location": "filer:/isos", "type": "nfs_iso"}, "filer:/isos"),
        ({"location": "[fd00::5]:/isos"}, "[fd00::5]:/isos"),
        ({"location": "//filer/isos/sub"}, "//filer/isos/sub"),
        ({"location": "\\\\filer\\isos", "type": "cifs"}, "//filer/isos"),
    ],
)
def test_a_location_says_what_is_mounted_and_that_it_is_only_read(configuration: dict[str, str], source: str) -> None:
    library = library_of(configuration)
    assert library.mount is not None
    assert library.mount.source == source
    assert library.mount.options[0] == "ro"


def test_options_are_written_as_for_mount_and_cannot_make_it_writable() -> None:
    library = library_of({"location": "filer:/isos", "options": "-o rw,nolock"})
    assert library.mount is not None
    assert "nolock" in library.mount.options
    assert "rw" not in library.mount.options


def test_a_folder_of_the_host_is_not_mounted() -> None:
    expected = Library(mount=None, path="/opt/isos/linux", tools=True)
    assert library_of({"location": "/opt/isos", "legacy_mode": "false", "iso_path": "/linux"}) == expected


def test_a_password_is_seen_by_the_helper_alone() -> None:
    library = library_of({"location": "//filer/isos", "username": "ann", "cifspassword": "hunter2"})
    assert library.mount is not None
    assert library.mount.environment == {"USER": "ann", "PASSWD": "hunter2"}
    assert "hunter2" not in " ".join(library.mount.arguments(Path("/place")))


async def test_a_scan_finds_images_and_nothing_else(
    plugin: IsoPlugin, sr: Handle, folder: Path, tmp_path: Path
) -> None:
    for name in ("debian 12.iso", "UPPER.ISO", "disk.img", "ünï.iso", "$(reboot);.iso"):
        image(folder, name)
    for name in ("readme.txt", ".hidden.iso", "line\nbreak.iso", "bell\a.iso"):
        image(folder, name)
    os.mkdir(folder / "folder.iso")
    os.mkfifo(folder / "pipe.iso")
    os.symlink("/nowhere", folder / "broken.iso")
    os.symlink("/dev/zero", folder / "device.iso")
    os.mknod(os.fsencode(folder) + b"/latin\xe9.iso")
    found = await plugin.sr.ls(sr)
    assert {volume.key for volume in found} == {"debian 12.iso", "UPPER.ISO", "disk.img", "ünï.iso", "$(reboot);.iso"}
    assert not any(volume.read_write for volume in found)
    for volume in found:
        assert (await plugin.datapath.attach(volume.uri[0], VM)).path == str(folder / volume.key)


async def test_images_have_the_same_uuid_on_every_host(plugin: IsoPlugin, sr: Handle, folder: Path) -> None:
    image(folder, "a.iso")
    named = "0ADE2390-1e4e-4b1a-9f5e-3b0c4d5e6f70"
    image(folder, f"{named}.iso")
    other = await plugin.sr.attach(SR, {"location": str(folder)}, HOST_B)
    assert {v.key: v.uuid for v in await plugin.sr.ls(sr)} == {v.key: v.uuid for v in await plugin.sr.ls(other)}
    assert image_uuid(SR, f"{named}.iso") == named.lower()


async def test_a_link_of_this_host_s_folder_may_lead_elsewhere_and_a_server_s_may_not(
    plugin: IsoPlugin, sr: Handle, folder: Path, tmp_path: Path
) -> None:
    image(tmp_path, "elsewhere.iso")
    os.symlink(tmp_path / "elsewhere.iso", folder / "link.iso")
    assert [volume.key for volume in await plugin.sr.ls(sr)] == ["link.iso"]
    attached = plugin.handles[sr]
    attached.place = folder
    with pytest.raises(ApiError, match="nothing is mounted"):
        attached.volume("link.iso")


async def test_an_image_is_read_by_many_hosts_and_written_by_none(plugin: IsoPlugin, sr: Handle, folder: Path) -> None:
    image(folder, "a.iso")
    await plugin.sr.attach(SR, {"location": str(folder)}, HOST_B)
    uri = (await plugin.volume.stat(sr, "a.iso")).uri[0]
    await plugin.datapath.activate_readonly(uri, VM)
    await plugin.datapath.activate_readonly(uri, Domain(host=HOST_B, dp="vbd/other/3"))
    with pytest.raises(ApiError, match="VDI_READONLY"):
        await plugin.datapath.activate(uri, VM)
    assert [held.dp for held in await plugin.datapath.held(sr)] == [VM.dp]


async def test_the_newest_tools_are_the_pool_s(plugin: IsoPlugin, sr: Handle, folder: Path) -> None:
    for name in ("guest-tools-8.3.60-1.iso", "guest-tools-8.3.60-10.iso", "guest-tools-8.3.60-9.iso", "a.iso"):
        image(folder, name)
    names = {volume.key: (volume.name, volume.keys) for volume in await plugin.sr.ls(sr)}
    label, keys = names["guest-tools-8.3.60-10.iso"]
    assert label == "guest-tools.iso"
    assert keys["_sm_config_xs-tools"] == "true"
    assert (keys["_sm_config_xs-tools-version"], keys["_sm_config_xs-tools-build"]) == ("8.3.60", "10")
    assert names["guest-tools-8.3.60-9.iso"][0] == "Old version of guest-tools.iso"
    assert names["a.iso"] == ("a.iso", {"vdi-type": "user"})
    assert await plugin.volume.stat(sr, "guest-tools-8.3.60-10.iso") in await plugin.sr.ls(sr)


def test_tools_need_no_version() -> None:
    assert tools_keys("xs-tools.iso") == {"_sm_config_xs-tools-version": "unknown", "_sm_config_xs-tools-build": "0"}
    assert tools_keys("my-tools.iso") == {}
    assert newest_tools(["a.iso"]) == ""


async def test_images_stay_when_the_sr_is_destroyed(plugin: IsoPlugin, sr: Handle, folder: Path) -> None:
    image(folder, "a.iso")
    await plugin.sr.destroy(sr)
    assert os.listdir(folder) == ["a.iso"]


async def test_a_share_without_the_helper_says_which_package_has_it(plugin: IsoPlugin) -> None:
    for location, package in (("filer:/isos", "nfs-common"), ("//filer/isos", "cifs-utils")):
        config = {"location": location}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("services.storage.plugins.program.SYSTEM_PATH", "/nonexistent")
            for work in (plugin.sr.create(SR, config, "", ""), plugin.sr.attach(SR, config, HOST_A)):
                with pytest.raises(ApiError, match=package):
                    await work


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_an_attach_that_is_cancelled_leaves_nothing_mounted(
    plugin: IsoPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "sr-mount" / HOST_A / SR
    library = Library(mount=Mount(kind="tmpfs", source="test"), path="/", tools=False)

    async def mounted(*arguments: Any) -> bool:
        fresh = await ensure(*arguments)
        assert mounted_at(place) is not None
        attaching.cancel()
        return fresh

    monkeypatch.setattr("services.storage.plugins.iso.library_of", lambda _: library)
    monkeypatch.setattr("services.storage.plugins.iso.ensure", mounted)
    attaching = asyncio.create_task(plugin.sr.attach(SR, {}, HOST_A))
    with pytest.raises(asyncio.CancelledError):
        await attaching
    assert mounted_at(place) is None
