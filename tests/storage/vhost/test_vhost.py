"""Disks by vhost-user, with a real qemu-storage-daemon: what one way writes the other reads, also where one ends."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import random
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from services.storage.formats.interface import PIECE
from services.storage.nbd.client import NbdClient, NbdError
from services.storage.transfer import job
from services.storage.transfer.disk import Disk
from services.storage.vhost.client import VhostDisk, VhostFailed
from services.storage.vhost.memory import Memory
from services.storage.vhost.ring import AVAILABLE_AT, ENTRIES, IN_FLIGHT, SIZE, USED_AT, Kind, Ring
from services.storage.vhost.server import DiskServer
from shared.contracts.storage import Backend

LENGTH = 8 << 20


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DiskServer]:
    image = tmp_path / "a, strange=name"
    image.write_bytes(bytes(LENGTH))
    backend = Backend(dp="task/1", kind="file", path=str(image), format="raw", writable=True)
    (tmp_path / "sockets, of it").mkdir()
    async with await DiskServer.serve(backend, tmp_path / "sockets, of it") as running:
        yield running
    assert not list((tmp_path / "sockets, of it").iterdir())


def filled(memory: Memory, data: bytes) -> memoryview:
    slot = memory.take(len(data))
    assert slot is not None
    slot[:] = data
    return slot


async def test_what_is_written_one_way_is_read_the_other(server: DiskServer, memory: Memory) -> None:
    """More requests at once than the queue holds, of all lengths."""
    model, choose = bytearray(LENGTH), random.Random(1)
    disk, nbd = await VhostDisk.connect(server.vhost, memory), await NbdClient.connect(server.address)
    writes = []
    for offset in range(0, LENGTH, LENGTH // (2 * IN_FLIGHT)):
        data = choose.randbytes(choose.randrange(1, 64) * 512)
        model[offset : offset + len(data)] = data
        writes.append((offset, data))
    for begin in range(0, len(writes), 20):
        await asyncio.gather(*(disk.write(offset, filled(memory, data)) for offset, data in writes[begin : begin + 20]))
    assert await nbd.read(0, LENGTH) == model
    await nbd.write(512, b"changed" * 512)
    model[512 : 512 + 7 * 512] = b"changed" * 512
    for offset in range(0, LENGTH, PIECE):
        slot = memory.take(PIECE)
        assert slot is not None
        await disk.read(offset, slot)
        assert bytes(slot) == model[offset : offset + PIECE]
        del slot
    await disk.close()
    await nbd.close()


async def test_a_server_that_is_killed_fails_what_waits_and_what_comes(server: DiskServer, memory: Memory) -> None:
    disk = await Disk.open(job.Disk(str(server.address), LENGTH, server.vhost), memory)
    process = psutil.Process(server.pid)
    process.suspend()
    reading = asyncio.create_task(disk.read(0, PIECE))
    await asyncio.sleep(0)
    process.kill()
    for each in (reading, asyncio.create_task(disk.write(0, bytes(512)))):
        with pytest.raises(NbdError):
            async with asyncio.timeout(10):
                await each
    await disk.close()


async def test_a_disk_is_read_and_written_when_all_memory_is_in_use(server: DiskServer) -> None:
    memory, data = Memory(slots=1), os.urandom(PIECE)
    disk = await Disk.open(job.Disk(str(server.address), LENGTH, server.vhost), memory)
    in_use = memory.take(PIECE)
    await disk.write(PIECE, data)
    assert await disk.read(PIECE, PIECE) == data
    assert in_use is not None
    await disk.close()


async def test_what_cannot_be_done_says_why(tmp_path: Path, memory: Memory) -> None:
    """By vhost-user there is no reason: it is asked again over NBD, which has one."""
    image = tmp_path / "image"
    image.write_bytes(bytes(LENGTH))
    backend = Backend(dp="task/1", kind="file", path=str(image), format="raw", writable=False)
    async with await DiskServer.serve(backend, tmp_path) as server:
        disk = await Disk.open(job.Disk(str(server.address), LENGTH, server.vhost), memory)
        with pytest.raises(NbdError):
            await disk.write(0, bytes(512))
        await disk.close()
        fast = await VhostDisk.connect(server.vhost, memory)
        with pytest.raises(VhostFailed):
            await fast.write(0, filled(memory, bytes(512)))
        await fast.close()


async def test_a_shared_disk_is_read_while_another_writes_past_the_page_cache(memory: Memory, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(LENGTH))
    backend = Backend(dp="task/1", kind="file", path=str(image), format="raw", writable=True, shared=True, direct=True)
    async with await DiskServer.serve(backend, tmp_path) as one, await DiskServer.serve(backend, tmp_path) as other:
        disk = await Disk.open(job.Disk(str(one.address), LENGTH, one.vhost), memory)
        same = await Disk.open(job.Disk(str(other.address), LENGTH, other.vhost), memory)
        for content in (b"one", b"two"):
            await disk.write(512, content * 1024)
            assert await same.read(512, 3 * 1024) == content * 1024
        await disk.close()
        await same.close()


async def test_without_the_daemon_there_is_nbd(tmp_path: Path, memory: Memory) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * LENGTH)
    backend = Backend(dp="task/1", kind="file", path=str(image), format="raw", writable=False)
    async with await DiskServer.serve(backend, tmp_path, daemon="no-such-program") as server:
        disk = await Disk.open(job.Disk(str(server.address), LENGTH, server.vhost), memory)
        assert await disk.read(0, PIECE) == b"x" * PIECE
        await disk.close()


async def test_a_processor_that_writes_out_of_order_has_nbd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    image = tmp_path / "disk"
    image.write_bytes(bytes(1 << 20))
    backend = Backend(dp="task/1", kind="file", path=str(image), format="raw", writable=False)
    async with await DiskServer.serve(backend, tmp_path) as server:
        assert server.vhost == ""


def test_memory_is_used_again_when_the_last_part_of_it_is_let_go() -> None:
    memory = Memory(slots=1)
    slot = memory.take(PIECE)
    assert slot is not None
    part = slot[512:1024]
    assert (memory.place(part), memory.place(b"elsewhere"), memory.take(1)) == (512, None, None)
    del slot
    assert memory.take(1) is None
    del part
    gc.collect()
    assert memory.take(1) is not None


def test_the_ring_goes_round_beyond_its_counters() -> None:
    """They are of 16 bits. A device that answers each request at once, every seventh with an error."""
    memory = memoryview(bytearray(SIZE))
    ring = Ring(memory, 0)
    for count in range(70_000):
        number = count % IN_FLIGHT
        ring.put(number, Kind.READ, 0, 0, 512)
        (first,) = struct.unpack_from("<H", memory, AVAILABLE_AT + 4 + 2 * (count % ENTRIES))
        (status,) = struct.unpack_from("<Q", memory, 16 * (first + 2))
        memory[status] = count % 7 == 0
        struct.pack_into("<II", memory, USED_AT + 4 + 8 * (count % ENTRIES), first, 0)
        struct.pack_into("<H", memory, USED_AT + 2, (count + 1) & 0xFFFF)
        assert list(ring.done()) == [(number, count % 7 != 0)]
