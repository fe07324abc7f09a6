"""The `file` plug-in: what becomes of the data, and everything that can be wrong with a folder."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import msgspec
import pytest

from services.storage.plugins.file import lease, qcow2
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.file.tree import Disk, Image, Tree
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, Handle, Volume
from shared.errors import ApiError
from tests.storage.support import HOST_A, HOST_B, MIB, SR, file_plugin, new


@pytest.fixture
async def plugin() -> AsyncIterator[FilePlugin]:
    made = file_plugin()
    yield made
    await made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sr"


@pytest.fixture
async def sr(plugin: FilePlugin, folder: Path) -> Handle:
    return await attach(plugin, folder)


async def attach(plugin: FilePlugin, folder: Path, host: str = HOST_A) -> Handle:
    configuration = await plugin.sr.create(SR, {"location": str(folder)}, "", "")
    return await plugin.sr.attach(SR, configuration, host)


async def nowhere(_: float) -> None:
    """A report that nobody reads."""


def write(volume: Volume, text: str, at: int = 0) -> None:
    _io(volume, f"write -P {ord(text)} {at} 65536")


def holds(volume: Volume, text: str, at: int = 0) -> bool:
    """Whether the disk, with all it is made of, has that pattern."""
    return "Pattern verification failed" not in _io(volume, f"read -P {ord(text)} {at} 65536")


def _io(volume: Volume, command: str) -> str:
    image = top(volume)
    done = subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, image], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def top(volume: Volume) -> str:
    """The image that a hypervisor would open, by its sidecar."""
    own = Path(volume.uri[0].removeprefix("file://"))
    side = own.with_suffix(".json")
    named = json.loads(side.read_bytes()).get("image", "") if side.exists() else ""
    return str(own.with_stem(named) if named else own)


def images(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.qcow2"))


def sidecars(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.json") if not path.name.startswith(".")]


# -- data --------------------------------------------------------------------------------------------------------------


async def test_a_probe_says_the_size_of_the_folder_s_file_system(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    stat = await plugin.sr.stat(sr)
    [found] = await plugin.sr.probe({"location": str(folder)})
    assert (found.uuid, found.total_space) == (SR, stat.total_space)
    assert 0 < found.free_space < found.total_space


async def test_branches_have_the_source_s_content_and_then_their_own(plugin: FilePlugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new(), 4 * MIB)
    write(source, "a")
    snapshot = await plugin.volume.snapshot(sr, source.key, new())
    clone = await plugin.volume.clone(sr, source.key, new())
    write(source, "b")
    write(clone, "c")
    reverted = await plugin.volume.clone(sr, snapshot.key, new())
    assert holds(source, "b")
    assert holds(clone, "c")
    assert holds(snapshot, "a")
    assert holds(reverted, "a")


async def test_a_disk_keeps_its_content_when_what_it_was_made_from_is_destroyed(
    plugin: FilePlugin, sr: Handle, folder: Path
) -> None:
    source = await plugin.volume.create(sr, new(), 4 * MIB)
    write(source, "a")
    snapshot = await plugin.volume.snapshot(sr, source.key, new())
    clone = await plugin.volume.clone(sr, snapshot.key, new())
    write(source, "b")
    await plugin.volume.destroy(sr, source.key)
    await plugin.volume.destroy(sr, snapshot.key)
    assert holds(clone, "a")
    assert [volume.key for volume in await plugin.sr.ls(sr)] == [clone.key]
    await plugin.volume.destroy(sr, clone.key)
    assert images(folder) == []
    assert sidecars(folder) == []


async def test_clones_of_an_unwritten_clone_do_not_pile_up(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    source = await plugin.volume.create(sr, new(), 4 * MIB)
    write(source, "a")
    for _ in range(5):
        clone = await plugin.volume.clone(sr, source.key, new())
    assert len(images(folder)) == 1 + 1 + 5  # one hidden node below all
    assert holds(clone, "a")


async def test_a_grown_branch_reads_zeros_beyond_its_source(plugin: FilePlugin, sr: Handle) -> None:
    source = await plugin.volume.create(sr, new(), 2 * MIB)
    write(source, "a")
    clone = await plugin.volume.clone(sr, source.key, new())
    grown = await plugin.volume.resize(sr, clone.key, 4 * MIB)
    assert holds(grown, "a")
    assert holds(grown, "\0", 3 * MIB)
    of_grown = await plugin.volume.clone(sr, grown.key, new())
    assert of_grown.virtual_size == 4 * MIB


async def test_a_copy_shares_nothing_with_its_source(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    source = await plugin.volume.create(sr, new(), 4 * MIB)
    write(source, "a")
    clone = await plugin.volume.clone(sr, source.key, new())
    copy = await plugin.volume.copy(sr, clone.key, new(), nowhere)
    await plugin.volume.destroy(sr, clone.key)
    await plugin.volume.destroy(sr, source.key)
    assert holds(copy, "a")
    assert images(folder) == [folder / f"{copy.key}.qcow2"]


async def test_a_copy_that_is_cancelled_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    plugin = file_plugin(_program(tmp_path, f'[ "$1" = convert ] && echo >{started} && exec sleep 60'))
    sr = await attach(plugin, folder)
    source = await plugin.volume.create(sr, new(), MIB)
    before = sorted(os.listdir(folder))
    copying = asyncio.create_task(plugin.volume.copy(sr, source.key, new(), nowhere))
    await asyncio.to_thread(started.read_bytes)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(copying, 5)
    assert sorted(os.listdir(folder)) == before
    await plugin.close()


async def test_metadata_may_hold_anything(plugin: FilePlugin, sr: Handle) -> None:
    wanted = new('quote " newline \n nul-free ünïcode 🦆')
    made = await plugin.volume.create(sr, wanted, MIB)
    assert (await plugin.volume.stat(sr, made.key)).name == wanted.name


async def test_an_image_that_somebody_put_there_is_a_disk(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    await _run("qemu-img", "create", "-q", "-f", "qcow2", str(folder / "debian-12.qcow2"), "8M")
    [found] = await plugin.sr.ls(sr)
    assert (found.key, found.virtual_size) == ("debian-12", 8 * MIB)


# -- crashes half-way --------------------------------------------------------------------------------------------------


def fail_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """The n-th image that is made from now on cannot be made."""
    make, made = qcow2.create, count(1)

    def create(path: Path, size: int, backing: str) -> None:
        make(path, size, backing)
        if next(made) == number:
            raise OSError(errno.EIO, "Input/output error")

    patch.setattr(qcow2, "create", create)


async def test_a_branch_that_fails_after_the_switch_leaves_the_disk_whole(
    plugin: FilePlugin, sr: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second image of a clone cannot be made: the disk goes on in a new one already."""
    source = await plugin.volume.create(sr, new(), 4 * MIB)
    write(source, "a")
    with monkeypatch.context() as patch:
        fail_at(patch, 2)
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_200"):
            await plugin.volume.clone(sr, source.key, new())
    assert holds(source, "a")
    write(source, "b", at=MIB)
    clone = await plugin.volume.clone(sr, source.key, new())
    assert holds(clone, "a")
    assert holds(clone, "b", at=MIB)


async def test_a_branch_that_fails_before_the_switch_leaves_nothing(
    plugin: FilePlugin, sr: Handle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await plugin.volume.create(sr, new(), 4 * MIB)
    write(source, "a")
    before = sorted(os.listdir(folder))
    with monkeypatch.context() as patch:
        fail_at(patch, 1)
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_200"):
            await plugin.volume.snapshot(sr, source.key, new())
    assert sorted(os.listdir(folder)) == before
    assert holds(source, "a")


async def test_attaching_removes_what_a_crash_left_and_nothing_else(plugin: FilePlugin, folder: Path) -> None:
    sr = await attach(plugin, folder)
    source = await plugin.volume.create(sr, new(), 4 * MIB)
    write(source, "a")
    # killed between making a new image and telling the disk of it
    await _run(
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-b",
        f"{source.key}.qcow2",
        *("-F", "qcow2"),
        str(folder / "node.qcow2"),
        "4M",
    )
    (folder / "node.json").write_text('{"uuid": "node", "hidden": true, "read_only": true}')
    (folder / f".tmp-{HOST_A}-half").write_text("half an image")
    (folder / f".tmp-{HOST_B}-other").write_text("another host is at it")
    await attach(plugin, folder)
    assert [image.stem for image in images(folder)] == [source.key]
    assert not (folder / f".tmp-{HOST_A}-half").exists()
    assert (folder / f".tmp-{HOST_B}-other").exists()
    assert holds(source, "a")


def test_only_images_of_ours_that_nobody_needs_are_garbage() -> None:
    tree = Tree(
        [
            Image("root", ""),
            Image("middle", "root"),
            Image("leaf", "middle"),
            Image("dead-root", ""),
            Image("dead-child", "dead-root"),
            Image("loop", "loop"),
            Image("theirs", "", ours=False),
        ],
        [Disk("disk", "leaf", writable=True)],
    )
    assert tree.garbage() == ["dead-child", "dead-root", "loop"]
    assert tree.chain("leaf") == ["leaf", "middle", "root"]


# -- what can be wrong -------------------------------------------------------------------------------------------------


async def test_an_sr_needs_a_location(plugin: FilePlugin) -> None:
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_94"):
        await plugin.sr.create(SR, {}, "", "")
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_1"):
        await plugin.sr.attach(SR, {"location": "relative/path"}, HOST_A)


async def test_a_folder_that_cannot_be_made_is_a_failed_creation(plugin: FilePlugin, tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_61"):
        await plugin.sr.create(SR, {"location": str(tmp_path / "no" / "such" / "parent")}, "", "")


async def test_a_folder_holds_one_sr(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    other = "5a000000-0000-4000-8000-000000000002"
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_42"):
        await plugin.sr.create(other, {"location": str(folder)}, "", "")
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.attach(other, {"location": str(folder)}, HOST_B)


async def test_an_empty_mount_point_is_not_taken_for_an_empty_sr(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    volume = await plugin.volume.create(sr, new(), MIB)
    os.rename(folder, folder.with_name("unmounted"))
    os.mkdir(folder)
    for attempt in (plugin.sr.ls(sr), plugin.volume.stat(sr, volume.key), plugin.sr.stat(sr)):
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
            await attempt
    for sharable in (False, True):
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
            await plugin.volume.create(sr, msgspec.structs.replace(new(), sharable=sharable), MIB)
    assert os.listdir(folder) == []
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.attach(SR, {"location": str(folder)}, HOST_A)


async def test_a_vanished_image_is_a_missing_disk(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    volume = await plugin.volume.create(sr, new(), MIB)
    (folder / f"{volume.key}.qcow2").unlink()
    with pytest.raises(ApiError, match="VDI_MISSING"):
        await plugin.datapath.attach(volume.uri[0], Domain(host=HOST_A, dp="dp"))
    assert await plugin.sr.ls(sr) == []
    await plugin.volume.destroy(sr, volume.key)  # what is left of it can be cleared away
    assert sidecars(folder) == []


@pytest.mark.parametrize("damage", ["empty", "overwritten", "truncated", "marked"])
async def test_a_damaged_image_is_refused_and_still_listed(
    plugin: FilePlugin, sr: Handle, folder: Path, damage: str
) -> None:
    volume = await plugin.volume.create(sr, new("precious"), 4 * MIB)
    image = folder / f"{volume.key}.qcow2"
    content = bytearray(image.read_bytes())
    match damage:
        case "empty":
            content.clear()
        case "overwritten":
            content[:4] = b"oops"
        case "truncated":
            del content[100:]
        case "marked":
            content[79] |= 2
    image.write_bytes(content)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_65"):
        await plugin.datapath.attach(volume.uri[0], Domain(host=HOST_A, dp="dp"))
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_65"):
        await plugin.volume.clone(sr, volume.key, new())
    [listed] = await plugin.sr.ls(sr)
    assert (listed.key, listed.name, listed.virtual_size) == (volume.key, "precious", 4 * MIB)


async def test_a_disk_whose_data_node_is_gone_is_refused(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    source = await plugin.volume.create(sr, new(), MIB)
    clone = await plugin.volume.clone(sr, source.key, new())
    (folder / f"{source.key}.qcow2").unlink()
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_65"):
        await plugin.datapath.attach(clone.uri[0], Domain(host=HOST_A, dp="dp"))


async def test_nothing_is_cleared_away_while_an_image_is_damaged(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    """Nobody knows what a damaged image needs."""
    source = await plugin.volume.create(sr, new(), MIB)
    clone = await plugin.volume.clone(sr, source.key, new())
    [node] = [image for image in images(folder) if image.stem not in (source.key, clone.key)]
    intact = (folder / f"{clone.key}.qcow2").read_bytes()
    (folder / f"{clone.key}.qcow2").write_bytes(b"")
    await plugin.volume.destroy(sr, source.key)
    assert node.exists()
    (folder / f"{clone.key}.qcow2").write_bytes(intact)
    await plugin.datapath.attach(clone.uri[0], Domain(host=HOST_A, dp="dp"))


async def test_qemu_img_missing_is_said_clearly(folder: Path) -> None:
    plugin = file_plugin("/nonexistent/qemu-img")
    sr = await attach(plugin, folder)
    made = await plugin.volume.create(sr, new(), MIB)
    with pytest.raises(ApiError, match="qemu-utils") as error:
        await plugin.volume.copy(sr, made.key, new(), nowhere)
    assert error.value.code == "SR_BACKEND_FAILURE"
    assert images(folder) == [folder / f"{made.key}.qcow2"]
    await plugin.close()


async def test_a_program_that_hangs_is_ended(tmp_path: Path, folder: Path) -> None:
    plugin = file_plugin(_program(tmp_path, "exec sleep 60"))
    plugin.images._timeout = 0.2
    sr = await attach(plugin, folder)
    made = await plugin.volume.create(sr, new(), MIB)
    with pytest.raises(ApiError, match="did not end within"):
        await plugin.volume.resize(sr, made.key, 2 * MIB)
    await plugin.close()


async def test_no_space_left_is_a_full_sr_and_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    text = "qemu-img: x: Could not resize: No space left on device"
    plugin = file_plugin(_program(tmp_path, f'echo half >"$8"; echo "{text}" >&2; exit 1'))
    sr = await attach(plugin, folder)
    made = await plugin.volume.create(sr, new(), 4 * MIB)
    before = sorted(os.listdir(folder))
    with pytest.raises(ApiError, match="SR_FULL") as error:
        await plugin.volume.copy(sr, made.key, new(), nowhere)
    assert error.value.params[0] == str(4 * MIB)
    assert int(error.value.params[1]) > 0
    assert sorted(os.listdir(folder)) == before
    await plugin.close()


_FULL = """
import asyncio, ctypes, os, sys
from pathlib import Path
from shared.errors import ApiError
from tests.storage.support import HOST_A, MIB, SR, file_plugin, new

async def fill(folder):
    plugin = file_plugin()
    await plugin.sr.create(SR, {"location": str(folder)}, "", "")
    sr = await plugin.sr.attach(SR, {"location": str(folder)}, HOST_A)
    made = []
    try:
        while len(made) < 500:
            made.append(await plugin.volume.create(sr, new(), 1 << 30))
    except ApiError as error:
        print(error.code, error.params[0], len(made))
    listed = await plugin.sr.ls(sr)
    assert {v.key for v in listed} == {v.key for v in made}, listed
    assert not [n for n in os.listdir(folder) if n.startswith(".tmp")]
    await plugin.close()

asyncio.run(fill(Path(sys.argv[1])))
"""


@pytest.mark.root
async def test_a_really_full_file_system_is_a_full_sr(tmp_path: Path) -> None:
    """Thin disks of 1 GiB fit on 1 MiB until there is no room for their headers."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system in a namespace of its own")
    script = tmp_path / "fill.py"
    await asyncio.to_thread(script.write_text, _FULL)
    mount = f"mount -t tmpfs -o size=1m none {tmp_path} && PYTHONPATH={os.getcwd()} exec {sys.executable}"
    out = await _run("unshare", "-m", "sh", "-c", f'text=$(cat {script}); {mount} -c "$text" {tmp_path}/sr')
    code, requested, made = out.split()
    assert (code, requested) == ("SR_FULL", str(1 << 30))
    assert int(made) > 3


@pytest.mark.root
async def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts read-only in a namespace of its own")
    (tmp_path / "sr").mkdir()
    (tmp_path / "sr" / ".sr.json").write_text(json.dumps({"uuid": SR}))
    code = f"""
import asyncio
from shared.errors import ApiError
from tests.storage.support import HOST_A, SR, file_plugin
async def main():
    try:
        await file_plugin().sr.attach(SR, {{"location": "{tmp_path}/sr"}}, HOST_A)
    except ApiError as error:
        print(error.code)
asyncio.run(main())
"""
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    script = f"{mount} && PYTHONPATH={os.getcwd()} exec {sys.executable} -c '{code}'"
    assert (await _run("unshare", "-m", "sh", "-c", script)).strip() == "SR_BACKEND_FAILURE_461"


# -- leases ------------------------------------------------------------------------------------------------------------


async def test_a_lease_stays_when_its_host_dies(plugin: FilePlugin, sr: Handle, folder: Path) -> None:
    """Its VM may go on writing. Neither time nor a missing process breaks it."""
    uri = (await plugin.volume.create(sr, new(), MIB)).uri[0]
    await plugin.datapath.activate(uri, Domain(host=HOST_A, dp="vm"))
    await plugin.close()
    other = file_plugin()
    await attach(other, folder, HOST_B)
    with pytest.raises(ActivatedOnAnotherHost):
        await other.datapath.activate(uri, Domain(host=HOST_B, dp="vm"))
    again = file_plugin()
    await attach(again, folder)
    await again.datapath.activate(uri, Domain(host=HOST_A, dp="vm"))
    for each in (other, again):
        await each.close()


async def test_a_lease_that_cannot_be_read_blocks_until_somebody_looks(
    plugin: FilePlugin, sr: Handle, folder: Path
) -> None:
    volume = await plugin.volume.create(sr, new(), MIB)
    (folder / lease.FOLDER / f"{volume.key}.writer").write_bytes(b"\0\0\0")
    with pytest.raises(ActivatedOnAnotherHost, match="unreadable lease"):
        await plugin.datapath.activate(volume.uri[0], Domain(host=HOST_A, dp="vm"))


async def test_processes_that_race_for_a_disk_get_it_one_at_a_time(
    plugin: FilePlugin, sr: Handle, folder: Path
) -> None:
    """Separate processes, each another host, activate and deactivate; while one has it, nobody else may."""
    uri = (await plugin.volume.create(sr, new(), MIB)).uri[0]
    code = """
import asyncio, os, sys
from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain
from tests.storage.support import SR, file_plugin
async def main(folder, uri, host):
    plugin = file_plugin()
    await plugin.sr.attach(SR, {"location": folder}, host)
    domain, wins = Domain(host=host, dp="dp"), 0
    while wins < 15:
        try:
            await plugin.datapath.activate(uri, domain)
        except ActivatedOnAnotherHost:
            await asyncio.sleep(0.001)
            continue
        wins += 1
        file = os.open(folder + "/inside", os.O_CREAT | os.O_EXCL)
        await asyncio.sleep(0.001)
        os.close(file)
        os.unlink(folder + "/inside")
        await plugin.datapath.deactivate(uri, domain)
        await asyncio.sleep(0.002)
    await plugin.close()
asyncio.run(main(*sys.argv[1:]))
"""
    await asyncio.gather(
        *(_run(sys.executable, "-c", code, str(folder), uri, f"{n}0000000-0000-4000-8000-000000000000") for n in "123")
    )


async def test_an_sr_that_another_host_rearranges_for_too_long_cannot_be_locked(folder: Path) -> None:
    plugin = file_plugin(lock_timeout=0.1)
    sr = await attach(plugin, folder)
    volume = await plugin.volume.create(sr, new(), MIB)
    with lease.Guard(folder / ".guard"), pytest.raises(ApiError, match="SR_VDI_LOCKING_FAILED"):
        await plugin.volume.destroy(sr, volume.key)
    await plugin.volume.destroy(sr, volume.key)
    await plugin.close()


def _program(tmp_path: Path, script: str) -> str:
    """A qemu-img that does something else first."""
    path = tmp_path / "qemu-img"
    path.write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("qemu-img")} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
