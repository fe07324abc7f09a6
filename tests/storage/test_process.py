"""The service as a process on a real broker: kill -9 and SIGTERM while a disk is open."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool import toml
from shared.bus import amqp
from shared.bus.contract import Empty, Scope
from shared.bus.interface import Bus
from shared.contracts import service as service_contract
from shared.contracts import storage as contract
from shared.errors import ApiError
from shared.service import wait_for
from tests.storage.support import MIB, SR, disk, new_uuid

pytestmark = pytest.mark.broker


@pytest.fixture
async def bus(broker_url: str) -> AsyncIterator[Bus]:
    made = await amqp.connect(broker_url, name="test-storage")
    yield made
    await made.close()


async def start(tmp_path: Path, url: str, host: str, bus: Bus) -> asyncio.subprocess.Process:
    document = {
        "service": "storage",
        "state_dir": str(tmp_path / "state"),
        "bus": {"url": url},
        "hosts": [{"uuid": host, "name": "a", "address": "127.0.0.11"}],
        "options": {},
    }
    await asyncio.to_thread((tmp_path / "storage.toml").write_text, toml.dumps(document))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.storage", "--config", str(tmp_path / "storage.toml")),
        stderr=asyncio.subprocess.DEVNULL,
    )
    ping = service_contract.ping("storage", Scope.HOST)
    await asyncio.wait_for(wait_for("the service", lambda: bus.call(ping, Empty(), host=host)), 20)
    return process


async def test_disks_stay_open_when_the_process_ends(tmp_path: Path, broker_url: str, bus: Bus) -> None:
    host = new_uuid()
    process = await start(tmp_path, broker_url, host, bus)
    try:
        device = {"location": str(tmp_path / "sr")}
        await bus.call(contract.SR_CREATE, contract.SrCreate(sr=SR, type="file", device_config=device), host=host)
        await bus.call(contract.SR_ATTACH, contract.SrAttach(sr=SR, type="file", device_config=device), host=host)
        made = await bus.call(
            contract.VDI_CREATE, contract.VdiCreate(sr=SR, uuid=new_uuid(), virtual_size=MIB), host=host
        )
        await bus.call(contract.OPEN, contract.Open(disks=[disk(made.location)]), host=host)
        for ending in (signal.SIGKILL, signal.SIGTERM):
            process.send_signal(ending)
            status = await asyncio.wait_for(process.wait(), 15)
            assert status == (0 if ending is signal.SIGTERM else -signal.SIGKILL)
            process = await start(tmp_path, broker_url, host, bus)
            held = (await bus.call(contract.DATAPATHS, Empty(), host=host)).datapaths
            assert [(dp.dp, dp.location, dp.state) for dp in held] == [("vbd/vm/0", made.location, "activated")]
        with pytest.raises(ApiError, match="VDI_IN_USE"):
            await bus.call(contract.VDI_DESTROY, contract.VdiRef(sr=SR, location=made.location), host=host)
        await bus.call(contract.CLOSE, contract.Close(dps=["vbd/vm/0"]), host=host)
        copy = contract.VdiClone(sr=SR, location=made.location, uuid=new_uuid())
        await bus.call(contract.VDI_COPY, copy, host=host)
        assert len((await bus.call(contract.SR_SCAN, contract.SrRef(sr=SR), host=host)).disks) == 2
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
