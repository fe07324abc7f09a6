"""Heartbeats and the coordinator's watch, on the bus. Times are a hundredth of the real ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from services.ha.service import serve
from shared.bus.contract import Empty, Scope
from shared.bus.endpoint import Endpoint
from shared.bus.interface import BusError, DeadlineExceeded
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import service as service_contract
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.ha import HEARTBEAT, LIVENESS, Heartbeat
from shared.service import Service

A = "a0000000-0000-4000-8000-00000000000a"
B = "b0000000-0000-4000-8000-00000000000b"

Start = Callable[..., Awaitable[Service]]


class Records:
    """The database's rows, in the test."""

    def __init__(self, *hosts: str) -> None:
        self.rows = dict.fromkeys(hosts, False)
        self.away = False
        self.refused = asyncio.Event()
        self._changed = asyncio.Condition()

    def live(self) -> Mapping[str, bool]:
        return self.rows

    def name(self, host: str) -> str:
        return host[:1]

    async def set_live(self, host: str, live: bool) -> None:
        if self.away:
            self.refused.set()
            raise DeadlineExceeded("db.transact")
        async with self._changed:
            self.rows = {**self.rows, host: live}
            self._changed.notify_all()

    async def wait(self, rows: dict[str, bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.rows == rows)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def start(broker: MemoryBroker, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Service] = []

    async def start(*hosts: str, records: Records | None = None, limit: float = 0.5) -> Service:
        config = Config(
            service="ha",
            state_dir=str(tmp_path),
            bus=BusConfig(url="memory:"),
            hosts=[HostConfig(uuid=host, name=host[:1], address="127.0.0.11") for host in hosts],
            options={"interval": 0.05, "limit": limit, "coordinator": records is not None},
        )
        service = Service(config, await broker.connect("ha"))
        await serve(service, records)
        await service.open_queues()
        started.append(service)
        return service

    yield start
    for service in started:
        if service.state != "stopping":
            await service.close()


@pytest.fixture
async def client(broker: MemoryBroker) -> AsyncIterator[Endpoint]:
    made = await broker.connect("client")
    yield made
    await made.close()


async def test_a_host_is_live_while_its_heartbeats_come(start: Start) -> None:
    records = Records(A, B)
    await start(A, records=records)
    member = await start(B)
    await records.wait({A: True, B: True})
    await member.close()
    await records.wait({A: True, B: False})
    await start(B)
    await records.wait({A: True, B: True})


async def test_many_hosts_of_one_process_take_turns(start: Start, client: Endpoint) -> None:
    beats: asyncio.Queue[Heartbeat] = asyncio.Queue()
    await client.subscribe(HEARTBEAT, lambda beat, _: beats.put_nowait(beat))
    hosts = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(40)]
    await start(*hosts)
    async with asyncio.timeout(10):
        got = [await beats.get() for _ in range(3 * len(hosts))]
    assert [beat.host for beat in got] == 3 * hosts
    assert [beat.seq for beat in got] == [turn for turn in range(3) for _ in hosts]
    assert len({beat.boot for beat in got}) == 1


async def test_a_coordinator_that_just_started_does_not_declare_anybody_dead(start: Start) -> None:
    records = Records(A, B)
    records.rows = {A: True, B: True}
    changed: list[tuple[str, bool]] = []
    original = records.set_live

    async def note(host: str, live: bool) -> None:
        changed.append((host, live))
        await original(host, live)

    records.set_live = note  # type: ignore[method-assign]
    begin = asyncio.get_running_loop().time()
    await start(A, records=records)
    await records.wait({A: True, B: False})
    assert changed == [(B, False)]
    assert asyncio.get_running_loop().time() - begin >= 0.5


async def test_liveness_tells_what_the_coordinator_sees(start: Start, client: Endpoint) -> None:
    records = Records(A, B)
    await start(A, records=records)
    await records.wait({A: True, B: False})
    table = (await client.call(LIVENESS, Empty())).hosts
    assert [(line.host, line.live) for line in table] == [(A, True), (B, False)]
    assert 0 <= table[0].age < 0.5
    assert table[1].age == -1


async def test_what_the_database_could_not_take_is_written_when_it_is_back(start: Start) -> None:
    records = Records(A)
    records.away = True
    await start(A, records=records)
    await asyncio.wait_for(records.refused.wait(), 30)
    records.away = False
    await records.wait({A: True})


async def test_a_lost_bus_makes_nobody_dead(start: Start, broker: MemoryBroker) -> None:
    """Nobody can be heard while it is away, and everybody has the full time when it is back."""
    records = Records(A)
    service = await start(A, records=records, limit=0.3)
    await records.wait({A: True})
    lost: list[bool] = []
    original = records.set_live

    async def note(host: str, live: bool) -> None:
        lost.append(live)
        await original(host, live)

    records.set_live = note  # type: ignore[method-assign]
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    service.bus.on_reconnect(reconnected)
    broker.kill()
    await asyncio.sleep(0.5)  # longer than the limit: the point of the test
    broker.restart()
    await asyncio.wait_for(back.wait(), 30)
    await asyncio.sleep(0.1)
    assert lost == []
    assert records.rows == {A: True}


async def test_a_clock_that_is_far_off_is_told_of_once_until_it_was_right_again(start: Start, client: Endpoint) -> None:
    """More than five minutes, either way; less than half of it counts as right."""
    alerts: asyncio.Queue[Alert] = asyncio.Queue()
    await client.subscribe(ALERT, lambda alert, _: alerts.put_nowait(alert), cls="Host")
    records = Records(A, B)
    await start(A, records=records)
    await records.wait({A: True, B: False})
    for seq, ahead in enumerate((299.0, 310.0, 400.0, 200.0, -310.0, 0.0, -310.0, -400.0)):
        beat = Heartbeat(host=B, boot="b", seq=seq, interval=2.0, time=time.time() + ahead)
        await client.publish(HEARTBEAT, beat, uuid=B)
    async with asyncio.timeout(30):
        told = [await alerts.get() for _ in range(2)]
    assert [(alert.name, alert.priority, alert.obj_uuid) for alert in told] == [("HOST_CLOCK_SKEW_DETECTED", 3, B)] * 2
    assert "host b is 310 seconds ahead of" in told[0].body
    assert "behind" in told[1].body
    assert alerts.empty()


async def test_every_host_s_ha_service_answers_ping(start: Start, client: Endpoint) -> None:
    await start(A)
    await client.call(service_contract.ping("ha", Scope.HOST), Empty(), host=A)
    with pytest.raises(BusError):
        await client.call(service_contract.ping("ha", Scope.HOST), Empty(), host=B)
