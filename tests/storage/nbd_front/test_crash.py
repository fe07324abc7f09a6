"""kill -9 of the storage service while a client reads: nothing of it is left, and the disk can be used again."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from services.storage.nbd.address import Address
from services.storage.nbd.client import NbdClient, NbdError
from services.storage.sockets import socket_folder
from shared.contracts.storage import VdiRef
from tests.storage.nbd_front.service import ADDRESS
from tests.storage.support import HOST_A, SR, machine


async def test_a_service_that_was_killed_leaves_no_client_no_process_and_no_open_disk(tmp_path: Path) -> None:
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.nbd_front.service", str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert service.stdout is not None
        port = int(await asyncio.wait_for(service.stdout.readline(), 20))
        client = await NbdClient.connect(Address(host=ADDRESS, port=port, export="/disk?session_id=one"))
        await client.read(0, 512)
        started = psutil.Process(service.pid).children(recursive=True)
        assert {process.name() for process in started} >= {"qemu-nbd"}
    finally:
        service.kill()
        await service.wait()
    with pytest.raises(NbdError):
        await client.read(0, 512)
    await client.close()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, started, 10)
    assert (len(gone), alive) == (len(started), [])
    assert not list(socket_folder(tmp_path / "state", "").iterdir())
    async with machine(tmp_path / "state") as storage:
        assert not storage[HOST_A].datapaths.held()
        [disk] = (await storage[HOST_A].disks.scan(SR)).disks
        await storage[HOST_A].disks.destroy(VdiRef(sr=SR, location=disk.location))
