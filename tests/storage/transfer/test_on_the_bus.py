"""Transfers as others on the bus have them: the service's own wiring, progress, cancellation, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from shared.bus.context import CallContext
from shared.bus.contract import Empty
from shared.bus.memory import MemoryBroker
from shared.contracts import storage as contract
from shared.contracts import transfer
from shared.contracts.task import CANCEL, PROGRESS, Cancel, Progress
from shared.errors import ApiError
from tests.storage.support import HOST_A, MIB, SR, new_uuid
from tests.storage.test_service import Running, config, start, with_disk, with_sr
from tests.storage.transfer.bench import words

SIZE = 32 * MIB


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    broker = MemoryBroker()
    service = await start(broker, config(tmp_path))
    client = await broker.connect("client")
    running = Running(broker, service, client, tmp_path / "sr")
    await with_sr(running)
    yield running
    await client.close()
    if service.state != "stopping":
        await service.close()


async def importing(running: Running) -> transfer.Prepared:
    made = await with_disk(running, SIZE)
    request = transfer.Import(dp=f"task/{new_uuid()}", sr=SR, location=made.location, format="raw", length=SIZE)
    return await running.client.call(transfer.IMPORT, request, host=HOST_A)


def programs() -> list[str]:
    """What runs for transfers: the tests' process may have a broker, too."""
    lines = [" ".join(words(child)) for child in psutil.Process().children()]
    return [line for line in lines if "qemu-" in line or "services.storage" in line]


async def nothing_open(running: Running) -> bool:
    held = await running.client.call(contract.DATAPATHS, Empty(), host=HOST_A)
    waiting = [line for line in programs() if "services.storage.transfer" in line]  # for the next transfer
    return not held.datapaths and len(waiting) <= 1 and programs() == waiting


async def test_a_task_is_told_how_far_an_import_is(running: Running) -> None:
    told: list[float] = []
    moving = asyncio.Event()

    def hear(progress: Progress, _: str) -> None:
        told.append(progress.progress)
        moving.set()

    await running.client.subscribe(PROGRESS, hear, task="t1")
    prepared = await importing(running)
    name = transfer.TransferId(transfer=prepared.transfer)
    context = CallContext(task="t1")
    end = asyncio.create_task(running.client.call(transfer.TRANSFER_END, name, host=HOST_A, context=context))
    _, writer = await asyncio.open_unix_connection(prepared.path)
    writer.write(b"x" * (SIZE // 2))
    async with asyncio.timeout(20):
        await moving.wait()
    writer.write(b"y" * (SIZE // 2))
    assert (await end).stream == SIZE
    writer.close()
    assert 0 < told[0] <= 0.5
    assert await nothing_open(running)


async def test_a_cancelled_task_ends_its_transfer(running: Running) -> None:
    prepared = await importing(running)
    name = transfer.TransferId(transfer=prepared.transfer)
    end = asyncio.create_task(
        running.client.call(transfer.TRANSFER_END, name, host=HOST_A, context=CallContext(task="t2"))
    )
    _, writer = await asyncio.open_unix_connection(prepared.path)
    await running.client.publish(CANCEL, Cancel(task="t2"), task="t2")
    with pytest.raises(ApiError) as cancelled:
        await end
    assert cancelled.value.code == "TASK_CANCELLED"
    writer.close()
    assert await nothing_open(running)


async def test_a_service_that_stops_ends_its_transfers(running: Running) -> None:
    await importing(running)
    assert programs()
    await running.service.close()
    assert not programs()
