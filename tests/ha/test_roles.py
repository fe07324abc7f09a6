"""What the role of a host makes of its ha and alerts processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.ha.service import serve
from services.ha.service import setup as ha
from shared import host_role
from shared.bus.contract import Empty
from shared.bus.interface import HostOffline
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts.ha import LIVENESS
from shared.host_role import COORDINATOR, RESTART, HostRole, member_of
from shared.service import Service
from tests.ha.test_service import A, Records

MEMBER = member_of("127.0.0.12")

Start = Callable[[str, HostRole], Awaitable[Service]]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def start(broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(host_role, "LOOK_EVERY", 0.01)
    started: list[Service] = []

    async def start(name: str, role: HostRole) -> Service:
        path = tmp_path / "pool.conf"
        host_role.write(path, role)
        config = Config(
            service=name,
            state_dir=str(tmp_path),
            bus=BusConfig(url="memory:"),
            hosts=[HostConfig(uuid=A, name="a", address="127.0.0.11")],
            options={"role_file": str(path)},
        )
        service = Service(config, await broker.connect(name))
        started.append(service)
        return service

    yield start
    for service in started:
        if service.state != "stopping":
            await service.close()


async def ends(service: Service, tmp_path: Path, role: HostRole) -> None:
    """When the host gets that role."""
    host_role.write(tmp_path / "pool.conf", role)
    async with asyncio.timeout(30):
        await service.stopping.wait()
    assert service.status == RESTART
    await service.close()


async def test_only_the_coordinator_watches_heartbeats(start: Start, broker: MemoryBroker, tmp_path: Path) -> None:
    client = await broker.connect("client")
    member = await start("ha", MEMBER)
    await ha(member)
    await member.open_queues()
    with pytest.raises(HostOffline):
        await client.call(LIVENESS, Empty())
    await ends(member, tmp_path, COORDINATOR)
    coordinator = await start("ha", COORDINATOR)
    await serve(coordinator, Records(A))
    await coordinator.open_queues()
    assert [one.host for one in (await client.call(LIVENESS, Empty())).hosts] == [A]
    await client.close()
    await ends(coordinator, tmp_path, MEMBER)
