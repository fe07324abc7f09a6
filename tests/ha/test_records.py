"""`host_metrics.live` in a real database process's hands, over the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.db.service import setup as set_up_database
from services.ha.records import DatabaseRecords
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config
from shared.contracts.db import Create
from shared.database import Database
from shared.replica import Replica
from shared.service import Service

HOST = "a0000000-0000-4000-8000-00000000000a"


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[DatabaseRecords]:
    broker = MemoryBroker()
    service = Service(
        Config(service="db", state_dir=str(tmp_path), bus=BusConfig(url="memory:")), await broker.connect("db")
    )
    await set_up_database(service)
    await service.open_queues()
    bus = await broker.connect("ha")
    replica = Replica(bus)
    following = asyncio.create_task(replica.run())
    await asyncio.wait_for(replica.wait_ready(), 10)
    database = Database(bus, replica)
    await database.transact(
        [
            Create(cls="host_metrics", ref="OpaqueRef:metrics", fields={"live": False}),
            Create(cls="host", ref="OpaqueRef:host", fields={"uuid": HOST, "metrics": "OpaqueRef:metrics"}),
        ]
    )
    yield DatabaseRecords(replica, database)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await bus.close()
    await service.close()


async def test_what_is_recorded_is_what_is_read(records: DatabaseRecords) -> None:
    assert records.live() == {HOST: False}
    await records.set_live(HOST, True)
    assert records.live() == {HOST: True}


async def test_a_host_that_was_removed_needs_no_record(records: DatabaseRecords) -> None:
    await records.set_live("b0000000-0000-4000-8000-00000000000b", True)
    assert records.live() == {HOST: False}


async def test_before_the_first_snapshot_nothing_is_known() -> None:
    bus = await MemoryBroker().connect("ha")
    replica = Replica(bus)
    assert DatabaseRecords(replica, Database(bus, replica)).live() == {}
    await bus.close()
