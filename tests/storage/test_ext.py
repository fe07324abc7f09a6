"""The SR type `ext`: what devices it takes, what it writes to them, what it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from services.storage.live import Live
from services.storage.options import StorageOptions
from services.storage.plugins import exclusive
from services.storage.plugins.bundled import bundled
from services.storage.plugins.ext import KIND, Signature, parse_blkid, signature
from services.storage.plugins.interface import Plugin
from services.storage.plugins.mounted_point import Mount, visit
from services.storage.plugins.program import run
from shared.errors import ApiError
from tests.storage.conformance.loops import Loop, loop_device
from tests.storage.support import HOST_A, MIB, SR

OTHER = "5a000000-0000-4000-8000-0000000000ff"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with loop_device(tmp_path / "device", 12 * MIB) as made:
        yield made


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[Plugin]:
    plugins = bundled(StorageOptions(), tmp_path, cast(Live, None))
    yield plugins["ext"]
    for plugin in plugins.values():
        await plugin.close()


def test_what_blkid_says_is_read() -> None:
    text = "DEVNAME=/dev/sdb\nLABEL=a=b\nUUID=5a00\nTYPE=ext4\nUSAGE=filesystem\n"
    assert parse_blkid(text) == Signature(type="ext4", uuid="5a00", label="a=b")
    assert parse_blkid("PTTYPE=gpt\nPTUUID=77\n") == Signature(partitions="gpt")
    assert parse_blkid("").blank


@pytest.mark.parametrize(
    "holder", [["mkswap"], ["mkfs.ext4", "-q", "-F"], ["mkfs.ext4", "-q", "-F", "-L", "xapi-sr", "-d", "/etc/default"]]
)
async def test_a_device_that_holds_something_is_refused_and_left_alone(
    plugin: Plugin, loop: Loop, holder: list[str]
) -> None:
    await run([*holder, loop.path])
    before = await signature(loop.path)
    with pytest.raises(ApiError, match="SR_DEVICE_IN_USE"):
        await plugin.sr.create(SR, {"device": loop.path}, "", "")
    assert await signature(loop.path) == before


async def test_a_device_with_partitions_is_refused(plugin: Plugin, loop: Loop) -> None:
    partition = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 2048)
    await asyncio.to_thread(
        loop.file.write_bytes, (bytes(446) + partition).ljust(510, b"\0") + b"\x55\xaa" + bytes(12 * MIB - 512)
    )
    with pytest.raises(ApiError, match="SR_DEVICE_IN_USE"):
        await plugin.sr.create(SR, {"device": loop.path}, "", "")
    assert await plugin.sr.probe({"device": loop.path}) == []


async def test_a_device_that_cannot_be_opened_is_refused_in_words(plugin: Plugin, tmp_path: Path) -> None:
    node = tmp_path / "node"
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(240, 9))  # a number of nobody's
    for attempt in (plugin.sr.probe({"device": str(node)}), plugin.sr.create(SR, {"device": str(node)}, "", "")):
        with pytest.raises(ApiError, match=f"SR_BACKEND_FAILURE_91.*cannot open {node}"):
            await attempt


async def test_a_device_that_somebody_has_for_himself_is_refused_and_the_log_says_who(
    plugin: Plugin, loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exclusive, "PATIENCE", 0.1)
    holder = os.open(loop.path, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(ApiError, match="SR_DEVICE_IN_USE"):
            await plugin.sr.create(SR, {"device": loop.path}, "", "")
    finally:
        os.close(holder)
    assert f"{loop.path} is in use: open in " in caplog.text
    assert f"(process {os.getpid()})" in caplog.text


async def test_whoever_has_a_new_sr_s_device_for_a_moment_more_is_waited_for(plugin: Plugin, loop: Loop) -> None:
    """As a program that was killed."""
    holder = os.open(loop.path, os.O_RDWR | os.O_EXCL)
    asyncio.get_running_loop().call_later(0.2, os.close, holder)
    await plugin.sr.create(SR, {"device": loop.path}, "", "")


async def test_a_mount_that_another_namespace_has_for_a_moment_more_does_not_fail_the_end_of_an_sr(
    plugin: Plugin, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = asyncio.Event()

    async def waited(device: str) -> bool:
        busy.set()
        return await exclusive.until_free(device)

    configuration = await plugin.sr.create(SR, {"device": loop.path}, "", "")
    handle = await plugin.sr.attach(SR, configuration, HOST_A)
    monkeypatch.setattr("services.storage.plugins.ext.until_free", waited)
    async with visit(Mount(kind="ext4", source=loop.path), tmp_path / "look", KIND.failures):
        destroying = asyncio.create_task(plugin.sr.destroy(handle))
        await busy.wait()
    await destroying
    assert (await signature(loop.path)).blank


async def test_another_sr_s_device_is_refused(plugin: Plugin, loop: Loop) -> None:
    await plugin.sr.create(OTHER, {"device": loop.path}, "", "")
    with pytest.raises(ApiError, match="SR_DEVICE_IN_USE"):
        await plugin.sr.create(SR, {"device": loop.path}, "", "")
    with pytest.raises(ApiError, match=f"does not hold this SR, but ext4 label xapi-sr {OTHER}"):
        await plugin.sr.attach(SR, {"device": loop.path}, HOST_A)


async def test_the_file_system_says_whose_it_is_and_is_erased_with_the_sr(plugin: Plugin, loop: Loop) -> None:
    configuration = await plugin.sr.create(SR, {"device": loop.path}, "", "")
    assert await signature(loop.path) == Signature(type="ext4", uuid=SR, label="xapi-sr")
    await plugin.sr.destroy(await plugin.sr.attach(SR, configuration, HOST_A))
    assert (await signature(loop.path)).blank


async def test_what_a_crash_leaves_of_a_destroyed_sr_is_no_hindrance(plugin: Plugin, loop: Loop) -> None:
    """Killed between the removal of the SR and that of its file system."""
    await run(["mkfs.ext4", "-q", "-F", "-L", "xapi-sr", "-U", OTHER, loop.path])
    configuration = await plugin.sr.create(SR, {"device": loop.path}, "", "")
    await plugin.sr.destroy(await plugin.sr.attach(SR, configuration, HOST_A))


async def test_an_sr_whose_making_was_interrupted_after_formatting_is_made_by_the_repetition(
    plugin: Plugin, loop: Loop
) -> None:
    await run(["mkfs.ext4", "-q", "-F", "-L", "xapi-sr", "-U", SR, loop.path])
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.attach(SR, {"device": loop.path}, HOST_A)
    configuration = await plugin.sr.create(SR, {"device": loop.path}, "", "")
    await plugin.sr.destroy(await plugin.sr.attach(SR, configuration, HOST_A))


async def test_a_file_system_that_is_mounted_read_only_is_refused_as_such(plugin: Plugin, loop: Loop) -> None:
    configuration = await plugin.sr.create(SR, {"device": loop.path}, "", "")
    await run(["blockdev", "--setro", loop.path])
    with pytest.raises(ApiError, match=r"SR_BACKEND_FAILURE_(461|52)"):
        await plugin.sr.attach(SR, configuration, HOST_A)


async def test_without_a_program_it_says_which_package_has_it(
    plugin: Plugin, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.storage.plugins.program.SYSTEM_PATH", "/nonexistent")
    with pytest.raises(ApiError, match="blkid cannot be run; it comes with the Debian package util-linux"):
        await plugin.sr.create(SR, {"device": loop.path}, "", "")


async def test_killed_while_any_of_its_programs_runs_the_service_does_it_all_again(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    output = await run([sys.executable, "-m", "tests.storage.dying", str(tmp_path / "state"), loop.path])
    outcomes = [json.loads(line) for line in output.stdout.splitlines()]
    assert output.status == 0, output.stderr
    died_with = [outcome.pop("died_with") for outcome in outcomes]
    assert {"mkfs.ext4", "unshare", "nsenter", "mount", "umount", "wipefs"} <= set(died_with)
    assert outcomes == [{"mounts": [], "blank": True}] * len(died_with)


async def test_a_probe_says_the_size_of_an_sr_whether_it_is_attached_or_not(plugin: Plugin, loop: Loop) -> None:
    configuration = await plugin.sr.create(SR, {"device": loop.path}, "", "")
    before = await plugin.sr.probe(configuration)
    sr = await plugin.sr.attach(SR, configuration, HOST_A)
    stat = await plugin.sr.stat(sr)
    for [found] in (before, await plugin.sr.probe(configuration)):
        assert (found.uuid, found.total_space, found.health) == (SR, stat.total_space, "healthy")
        assert 0 < found.free_space < found.total_space
    await plugin.sr.detach(sr)


async def test_a_probe_of_a_file_system_that_cannot_be_mounted_finds_the_sr_and_says_how_it_is(
    plugin: Plugin, loop: Loop
) -> None:
    configuration = await plugin.sr.create(SR, {"device": loop.path}, "", "")
    await run(["dd", "if=/dev/urandom", f"of={loop.path}", "bs=1024", "seek=2", "count=1", "conv=notrunc,fsync"])
    [found] = await plugin.sr.probe(configuration)
    assert (found.uuid, found.total_space, found.health) == (SR, 12 * MIB, "unavailable")
