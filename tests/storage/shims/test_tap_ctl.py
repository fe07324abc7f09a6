"""tap-ctl: rows, statuses and JSON as drivers read them, and what becomes of a tapdisk's disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import random
import signal
from pathlib import Path

import pytest

from services.storage.formats.cbt import changed_ranges, parse_log
from services.storage.formats.vhd.chain import Chain
from services.storage.nbd.client import NbdClient, NbdError
from services.storage.smapiv1.shims import images
from tests.storage.shims.conftest import MIB, Host, needs_root

pytestmark = [pytest.mark.asyncio(loop_scope="module"), needs_root]


def vhd(folder: Path, name: str = "a.vhd", size: int = 8 * MIB) -> Path:
    images.create(str(folder / name), size)
    return folder / name


def content(path: Path) -> bytes:
    with Chain.open(str(path)) as disk:
        return disk.read(0, disk.size)


async def rows(host: Host, *options: object) -> list[str]:
    return (await host.run("tap-ctl", "list", *options)).splitlines()


async def test_a_disk_is_served_from_allocate_to_free(host: Host, folder: Path) -> None:
    path = vhd(folder)
    device = await host.run("/usr/sbin/tap-ctl", "allocate")
    assert device == "/run/blktap-control/tapdisk/tapdisk-0"
    assert await rows(host) == ["minor=0"]
    pid = await host.run("tap-ctl", "spawn")
    assert await rows(host) == [f"pid={pid}", "minor=0"]
    await host.run("tap-ctl", "attach", "-p", pid, "-m", 0)
    assert await rows(host) == [f"pid={pid} minor=0 state=0x2"]
    await host.run("tap-ctl", "open", "-p", pid, "-m", 0, "-a", f"vhd:{path}", "-t", 40)
    opened = f"pid={pid} minor=0 state=0x0 args=vhd:{path}"
    for options in ((), ("-m", 0), ("-p", pid), ("-f", path), ("-t", "vhd")):
        assert await rows(host, *options) == [opened]
    for others in (("-m", 1), ("-f", "/other"), ("-t", "aio")):
        assert await rows(host, *others) == []
    stats = json.loads(await host.run("tap-ctl", "stats", "-p", pid, "-m", 0))
    assert (stats["name"], stats["reqs_outstanding"], stats["nbd_mirror_failed"]) == (f"vhd:{path}", 0, 0)
    assert stats["read_caching"] == "false"
    assert [image["name"] for image in stats["images"]] == [str(path)]
    await host.run("tap-ctl", "close", "-p", pid, "-m", 0, "-t", 120)
    assert await rows(host) == [f"pid={pid} minor=0 state=0x2"]
    await host.run("tap-ctl", "detach", "-p", pid, "-m", 0)
    assert await rows(host) == ["minor=0"]  # the tapdisk ends with its last disk
    await host.run("tap-ctl", "free", "-m", 0)
    assert await rows(host) == []
    assert await host.run("ls", "/run/blktap-control") == "tapdisk"


async def test_what_goes_wrong_has_its_number(host: Host, folder: Path) -> None:
    path = vhd(folder)
    served = await host.serve(f"vhd:{path}")
    gone = ("-p", 999999, "-m", 0)
    for words, status in {
        ("list", "-p", 999999): errno.ENOENT,
        ("open", *gone, "-a", "vhd:/x"): errno.ENOENT,
        ("free", "-m", served.minor): errno.EBUSY,
        ("free", "-m", 77): errno.ENODEV,
        ("attach", "-p", served.pid, "-m", served.minor): errno.EEXIST,
        ("pause", "-p", served.pid, "-m", 77): errno.ENODEV,
        ("detach", "-p", served.pid, "-m", served.minor): errno.EBUSY,
        ("unpause", "-p", served.pid, "-m", served.minor): errno.EINVAL,
        ("open", "-p", served.pid, "-m", served.minor, "-a", f"vhd:{path}"): errno.EBUSY,
        ("open", "-p", served.pid, "-m", served.minor, "-a", f"vhd:{path}", "-2", "nbd:x"): errno.ENOTSUP,
        ("open", "-p", served.pid, "-m", served.minor): errno.EINVAL,
        ("nonsense",): errno.EINVAL,
    }.items():
        assert await host.run("tap-ctl", *words, status=status)
    await host.tap("close", served)
    for args, status in {
        f"vhd:{folder}/none.vhd": errno.ENOENT,
        "qcow2:/x": errno.EINVAL,
        "vhd:/dev/null": errno.EIO,
    }.items():
        assert await host.tap("open", served, "-a", args, status=status)
    await host.tap("open", served, "-a", f"vhd:{path}")
    await host.end(served)


@pytest.mark.parametrize("kind", ["vhd", "aio"])
async def test_what_is_written_is_in_the_image(host: Host, folder: Path, kind: str) -> None:
    path = vhd(folder)
    if kind == "aio":
        path.write_bytes(b"")
        os.truncate(path, 8 * MIB)
    served = await host.serve(f"{kind}:{path}")
    model = bytearray(8 * MIB)
    async with await served.connect() as disk, await served.connect() as other:
        assert disk.size == 8 * MIB
        for offset, data in ((0, b"first"), (3 * MIB - 700, os.urandom(5000)), (8 * MIB - 512, bytes([9]) * 512)):
            await disk.write(offset, data)
            model[offset : offset + len(data)] = data
        await disk.zero(3 * MIB, 1000)
        model[3 * MIB : 3 * MIB + 1000] = bytes(1000)
        await disk.flush()
        assert await other.read(0, 8 * MIB) == model
        holes = [extent async for extent in other.extents()]
        assert any(extent.zero for extent in holes)
        for extent in holes:
            assert not extent.zero or not any(model[extent.offset : extent.offset + extent.length])
    await host.end(served)
    assert (content(path) if kind == "vhd" else path.read_bytes()) == model


async def test_a_chain_is_served_as_its_formats_read_it(host: Host, folder: Path) -> None:
    vhd(folder, "base.vhd")
    paths = [folder / "base.vhd", folder / "middle.vhd", folder / "leaf.vhd"]
    chance = random.Random(7)
    for number, path in enumerate(paths):
        if number:
            images.snapshot(str(path), str(paths[number - 1]))
        with Chain.open(str(path), writable=True) as disk:
            for _ in range(20):
                disk.write(
                    chance.randrange(0, 8 * MIB - 65536, 512), bytes([number + 1]) * 512 * chance.randrange(1, 64)
                )
            disk.flush()
    expected = content(paths[-1])
    served = await host.serve(f"vhd:{paths[-1]}", "-R", "-D", "-r", "-e", 3)
    async with await served.connect() as disk:
        assert await disk.read(0, 8 * MIB) == expected
        assert not disk.writable
        with pytest.raises(NbdError):
            await disk.write(0, bytes(512))
    target = folder / "copy.raw"
    uri = f"nbd+unix:///{'x' * 36}?socket={served.socket}"
    await host.run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, target)
    assert target.read_bytes() == expected
    await host.end(served)


async def lost(disk: NbdClient) -> None:
    """Returns when its server is gone."""
    with contextlib.suppress(NbdError):
        while True:
            await disk.read(0, 512)


async def writer(
    disk: NbdClient, region: int, model: dict[int, bytes], written: asyncio.Event, stop: asyncio.Event
) -> None:
    """Writes and reads in a part of the disk of its own until told to stop."""
    chance = random.Random(region)
    while not stop.is_set():
        block = region * 64 + chance.randrange(64)
        data = chance.randbytes(4096)
        await disk.write(block * 4096, data)
        model[block] = data
        written.set()
        probe = chance.choice(list(model))
        if probe // 64 == region:
            assert await disk.read(probe * 4096, 4096) == model[probe]


async def test_a_pause_under_load_loses_no_request_and_reads_the_new_chain_after(host: Host, folder: Path) -> None:
    path = vhd(folder)
    served = await host.serve(f"vhd:{path}")
    model: dict[int, bytes] = {}
    written, stop = asyncio.Event(), asyncio.Event()
    clients = [await served.connect() for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        for region in range(24):
            group.create_task(writer(clients[region % 3], region, model, written, stop))
        for number in range(3):
            await host.tap("pause", served)
            assert (await rows(host, "-m", served.minor))[0].split()[2] == "state=0x20"
            before = dict(model)
            digest = hashlib.sha256(path.read_bytes()).digest()
            await host.tap("pause", served)  # again: nothing to do
            base = folder / f"base{number}.vhd"
            path.rename(base)
            images.snapshot(str(path), str(base))
            assert model == before
            assert hashlib.sha256(base.read_bytes()).digest() == digest
            await host.tap("unpause", served, "-a", f"vhd:{path}")
            written.clear()
            await written.wait()
        stop.set()
    whole = bytearray(8 * MIB)
    for block, data in model.items():
        whole[block * 4096 : block * 4096 + 4096] = data
    assert await clients[0].read(0, 8 * MIB) == whole
    for client in clients:
        await client.close()
    await host.end(served)
    assert content(path) == whole
    with Chain.open(str(path)) as disk:
        assert len(disk.nodes) == 4


async def test_an_image_that_cannot_be_opened_again_stays_paused_until_it_can(host: Host, folder: Path) -> None:
    path = vhd(folder)
    served = await host.serve(f"vhd:{path}")
    async with await served.connect() as disk:
        await host.tap("pause", served)
        path.rename(folder / "away")
        await host.tap("unpause", served, status=errno.ENOENT)
        written = asyncio.create_task(disk.write(0, b"x" * 512))
        assert "state=0x20" in (await rows(host, "-m", served.minor))[0]
        assert not written.done()
        await host.tap("unpause", served, "-a", f"vhd:{folder / 'away'}")
        await written
    await host.end(served)
    assert content(folder / "away")[:512] == b"x" * 512


async def test_a_tapdisk_that_was_killed_leaves_a_sound_image_and_no_row(host: Host, folder: Path) -> None:
    path = vhd(folder)
    served = await host.serve(f"vhd:{path}")
    async with await served.connect() as disk:
        await disk.write(5 * MIB, b"k" * 4096)
        os.kill(served.pid, signal.SIGKILL)
        await lost(disk)
    assert await rows(host) == [f"minor={served.minor}"]
    assert await host.run("ls", "/run/blktap-control") == "tapdisk"
    await host.run("tap-ctl", "free", "-m", served.minor)
    assert (await host.run("vhd-util", "check", "-n", path)).endswith("is valid")
    assert content(path)[5 * MIB : 5 * MIB + 4096] == b"k" * 4096


async def test_a_tapdisk_closes_its_images_when_it_is_told_to_end(host: Host, folder: Path) -> None:
    path = vhd(folder)
    served = await host.serve(f"vhd:{path}")
    async with await served.connect() as disk:
        await disk.write(0, b"t" * 512)
        os.kill(served.pid, signal.SIGTERM)
        await lost(disk)
    assert content(path)[:512] == b"t" * 512
    assert await rows(host, "-m", served.minor) == [f"minor={served.minor}"]
    await host.run("tap-ctl", "free", "-m", served.minor)


async def test_written_blocks_are_in_the_cbt_log(host: Host, folder: Path) -> None:
    path, log = vhd(folder), folder / "a.cbtlog"
    await host.run("/usr/sbin/cbt-util", "create", "-n", log, "-s", 8 * MIB)
    served = await host.serve(f"vhd:{path}", "-C", log)
    async with await served.connect() as disk:
        await disk.write(65536, b"c" * 4096)
        await host.tap("pause", served)
        await host.tap("unpause", served, "-c", log)
        await disk.zero(5 * MIB - 1, 2)
    os.kill(served.pid, signal.SIGKILL)  # what is noted is noted
    found = parse_log(log.read_bytes())
    assert list(changed_ranges(found.bitmap, found.size)) == [(65536, 65536), (5 * MIB - 65536, 131072)]
    assert await rows(host) == [f"minor={served.minor}"]
    await host.run("tap-ctl", "free", "-m", served.minor)
