"""A member's alerts process: it waits until its host becomes coordinator, and costs next to nothing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from services.alerts.service import setup
from shared import host_role
from shared.bus.contract import Empty
from shared.bus.interface import HostOffline
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, ConfigError
from shared.contracts.alerts import CONSUMERS
from shared.host_role import COORDINATOR, RESTART, member_of
from shared.service import Service

BROKEN_HOOK = {"kind": "webhook", "name": "hook", "url": "ftp://nowhere"}


async def member(folder: Path, broker: MemoryBroker, **options: object) -> Service:
    path = folder / "pool.conf"
    host_role.write(path, member_of("127.0.0.12"))
    config = Config(
        service="alerts",
        state_dir=str(folder),
        bus=BusConfig(url="memory:"),
        options={"role_file": str(path), **options},
    )
    return Service(config, await broker.connect("alerts"))


async def test_a_member_delivers_nothing_until_it_is_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_role, "LOOK_EVERY", 0.01)
    broker = MemoryBroker()
    threads = threading.active_count()
    service = await member(tmp_path, broker)
    await setup(service)
    await service.open_queues()
    assert threading.active_count() == threads
    client = await broker.connect("client")
    with pytest.raises(HostOffline):
        await client.call(CONSUMERS, Empty())
    host_role.write(tmp_path / "pool.conf", COORDINATOR)
    async with asyncio.timeout(5):
        await service.stopping.wait()
    assert service.status == RESTART
    await service.close()
    await client.close()


async def test_a_consumer_that_cannot_work_is_refused_on_members_too(tmp_path: Path) -> None:
    service = await member(tmp_path, MemoryBroker(), consumers=[BROKEN_HOOK])
    with pytest.raises(ConfigError):
        await setup(service)
    await service.close()
