"""Media that are mounted: what the kernel says is mounted, what a crash leaves, and what is never taken for the SR."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from services.storage.host import HostStorage
from services.storage.journal import Journal
from services.storage.live import Live
from services.storage.options import StorageOptions
from services.storage.plugins.bundled import bundled
from services.storage.plugins.errors import Failure
from services.storage.plugins.interface import Handle, Plugin
from services.storage.plugins.mounted import MountedPlugin
from services.storage.plugins.mounted_point import Failures, Mount, Mounted, mounted_at, mounts, parse_mountinfo, visit
from services.storage.plugins.program import run
from shared.contracts.storage import SrAttach, SrCreate
from shared.errors import ApiError
from tests.storage.conformance.loops import Loop, loop_device
from tests.storage.support import HOST_A, MIB, SR, new

FAILURES = Failures(mount=Failure.MOUNT, unmount=Failure.UNMOUNT)
OTHER = "5a000000-0000-4000-8000-0000000000ff"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with loop_device(tmp_path / "device", 12 * MIB) as made:
        yield made
        for found in mounts():
            if found.place.startswith(str(tmp_path)):
                subprocess.run(["umount", found.place], check=True)


@pytest.fixture
async def plugins(tmp_path: Path) -> AsyncIterator[dict[str, Plugin]]:
    made = start(tmp_path)
    yield made
    await end(made)


def start(state: Path) -> dict[str, Plugin]:
    return bundled(StorageOptions(), state, cast(Live, None))


async def end(plugins: dict[str, Plugin]) -> None:
    for plugin in plugins.values():
        await plugin.close()


def place(state: Path, sr: str = SR) -> Path:
    return state / "sr-mount" / HOST_A / sr


async def attach(plugin: Plugin, configuration: dict[str, str]) -> Handle:
    return await plugin.sr.attach(SR, await plugin.sr.create(SR, configuration, "", ""), HOST_A)


def test_mountinfo_is_read_with_its_escapes_and_its_optional_fields() -> None:
    text = (
        "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        r"43 25 7:0 /sub /mnt/a\040b\134 rw,relatime shared:1 master:2 - fuse.x server:/exp\011ort rw" + "\n"
        "garbage\n"
    )
    assert parse_mountinfo(text) == [
        Mounted(place="/", kind="ext4", source="/dev/sda1", device=(8, 1)),
        Mounted(place="/mnt/a b\\", kind="fuse.x", source="server:/exp\tort", device=(7, 0)),
    ]


def test_no_secret_and_no_option_of_mount_can_be_smuggled_into_its_arguments() -> None:
    mount = Mount(kind="cifs", source="-o remount", options=("ro", "vers=3.0"), environment={"PASSWD": "hunter2"})
    assert mount.arguments(Path("/place")) == ["mount", "-t", "cifs", "-o", "ro,vers=3.0", "--", "-o remount", "/place"]


async def test_a_visit_is_seen_by_nobody_else_and_leaves_nothing(tmp_path: Path) -> None:
    mount = Mount(kind="tmpfs", source="test", options=("size=1m",), visiting=("nr_inodes=64",))
    async with visit(mount, tmp_path / "visit", FAILURES) as root:
        await asyncio.to_thread((root / "file").write_text, "there")
        assert (await asyncio.to_thread(os.statvfs, root)).f_files == 64
        assert mounted_at(tmp_path / "visit") is None
        assert await asyncio.to_thread(os.listdir, tmp_path / "visit") == []
    assert not await asyncio.to_thread(root.exists)


async def test_a_visit_that_cannot_be_mounted_says_what_mount_said(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_52") as error:
        async with visit(Mount(kind="ext4", source="/dev/null"), tmp_path / "visit", FAILURES):
            pass
    assert "block device" in error.value.params[2]


async def test_a_helper_that_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    mount = Mount(kind="nfs", source="server:/", helper="mount.no-such-file-system")
    with pytest.raises(ApiError, match=r"mount.no-such-file-system cannot be run"):
        async with visit(mount, tmp_path / "visit", FAILURES):
            pass


async def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(ApiError, match="did not end within"):
        await run(["sleep", "60"], timeout=0.05)


async def test_an_sr_is_not_detached_while_something_has_its_files_open_and_goes_on(
    plugins: dict[str, Plugin], loop: Loop, tmp_path: Path
) -> None:
    plugin = plugins["ext"]
    sr = await attach(plugin, {"device": loop.path})
    volume = await plugin.volume.create(sr, new(), MIB)
    image = await asyncio.to_thread(open, volume.uri[0].removeprefix("file://"), "rb")
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_53") as error:
        await plugin.sr.detach(sr)
    assert "busy" in error.value.params[2]
    assert await plugin.sr.ls(sr) == [volume]
    image.close()
    await plugin.sr.detach(sr)
    assert mounted_at(place(tmp_path)) is None


async def test_a_folder_on_which_nothing_is_mounted_any_more_is_not_the_sr(
    plugins: dict[str, Plugin], loop: Loop, tmp_path: Path
) -> None:
    plugin = plugins["ext"]
    sr = await attach(plugin, {"device": loop.path})
    await run(["umount", str(place(tmp_path))])
    for work in (plugin.sr.ls(sr), plugin.sr.stat(sr), plugin.volume.create(sr, new(), MIB)):
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE"):
            await work
    assert await asyncio.to_thread(os.listdir, place(tmp_path)) == []
    await plugin.sr.detach(sr)


async def test_what_an_earlier_configuration_left_mounted_makes_room(
    plugins: dict[str, Plugin], loop: Loop, tmp_path: Path
) -> None:
    plugin = plugins["ext"]
    await plugin.sr.create(SR, {"device": loop.path}, "", "")
    await asyncio.to_thread(place(tmp_path).mkdir, parents=True)
    await run(["mount", "-t", "tmpfs", "left", str(place(tmp_path))])
    sr = await plugin.sr.attach(SR, {"device": loop.path}, HOST_A)
    assert [found.kind for found in mounts() if found.place == str(place(tmp_path))] == ["ext4"]
    await plugin.sr.detach(sr)


async def test_an_attach_that_fails_unmounts_what_it_mounted(
    plugins: dict[str, Plugin], loop: Loop, tmp_path: Path
) -> None:
    plugin = plugins["ext"]
    await plugin.sr.create(SR, {"device": loop.path}, "", "")
    sr = await plugin.sr.attach(SR, {"device": loop.path}, HOST_A)
    await asyncio.to_thread((place(tmp_path) / SR / ".sr.json").unlink)
    await plugin.sr.detach(sr)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.attach(SR, {"device": loop.path}, HOST_A)
    assert mounted_at(place(tmp_path)) is None
    assert not await asyncio.to_thread(place(tmp_path).exists)


async def test_an_attach_that_is_cancelled_leaves_nothing_mounted(
    plugins: dict[str, Plugin], loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = plugins["ext"]
    configuration = await plugin.sr.create(SR, {"device": loop.path}, "", "")
    files = cast(MountedPlugin, plugin).files.sr
    attach_files = files.attach

    async def cancelled_by_now(uuid: str, configuration: dict[str, str], on: str) -> Handle:
        assert mounted_at(place(tmp_path)) is not None
        attaching.cancel()
        return await attach_files(uuid, configuration, on)

    monkeypatch.setattr(files, "attach", cancelled_by_now)
    attaching = asyncio.create_task(plugin.sr.attach(SR, configuration, HOST_A))
    with pytest.raises(asyncio.CancelledError):
        await attaching
    assert mounted_at(place(tmp_path)) is None
    assert not await asyncio.to_thread(place(tmp_path).exists)
    monkeypatch.undo()
    await plugin.sr.detach(await plugin.sr.attach(SR, configuration, HOST_A))


async def test_what_a_killed_service_had_mounted_is_attached_or_unmounted_when_it_starts_again(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between mounting and writing down that it is attached: nobody was told, but somebody has to know."""
    (tmp_path / "journal").mkdir()
    first = start(tmp_path)
    host = HostStorage(HOST_A, first, Journal(tmp_path / "journal" / "1"))
    await host.create_sr(SrCreate(sr=SR, type="ext", device_config={"device": loop.path}))
    request = SrAttach(sr=SR, type="ext", device_config={"device": loop.path})
    journals: list[bytes] = []
    files = cast(MountedPlugin, first["ext"]).files.sr
    attach_files = files.attach

    async def mounted_by_now(uuid: str, configuration: dict[str, str], on: str) -> Handle:
        journals.append(await asyncio.to_thread((tmp_path / "journal" / "1").read_bytes))
        return await attach_files(uuid, configuration, on)

    monkeypatch.setattr(files, "attach", mounted_by_now)
    await host.attach_sr(request)
    await end(first)

    await asyncio.to_thread((tmp_path / "journal" / "2").write_bytes, journals[0])
    second = start(tmp_path)
    again = HostStorage(HOST_A, second, Journal(tmp_path / "journal" / "2"))
    await again.start("boot")
    await again.retry()
    assert again.repositories.attached() == [SR]
    await again.detach_sr(SR)
    assert mounted_at(place(tmp_path)) is None
    await end(second)


async def test_mount_points_that_a_killed_service_has_left_go_unless_something_is_there(tmp_path: Path) -> None:
    left, used = place(tmp_path), place(tmp_path, OTHER)
    for folder in (left, used):
        await asyncio.to_thread(folder.mkdir, parents=True)
    await asyncio.to_thread(subprocess.run, ["mount", "-t", "tmpfs", "tmpfs", str(used)], check=True)
    try:
        await end(start(tmp_path))
        assert not await asyncio.to_thread(left.exists)
        assert mounted_at(used) is not None
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(used)], check=True)
    await end(start(tmp_path))
    assert not await asyncio.to_thread((tmp_path / "sr-mount").is_dir) or not list((tmp_path / "sr-mount").iterdir())


async def test_an_attach_that_a_crash_interrupted_and_that_cannot_be_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    journal = Journal(tmp_path / "journal" / "1")
    configuration = {"device": "/dev/no-such-device"}
    wanted = {"type": "ext", "device_config": configuration, "attaching": True}
    await journal.write({f"sr/{HOST_A}/{SR}": wanted, f"sr/{HOST_A}/{OTHER}": {**wanted, "attaching": False}})
    plugins = start(tmp_path)
    host = HostStorage(HOST_A, plugins, journal)
    await host.start("boot")
    await host.retry()
    assert host.repositories.missing() == [OTHER]
    with pytest.raises(ApiError, match="SR_NOT_ATTACHED"):
        host.repositories.find(SR)
    await end(plugins)
