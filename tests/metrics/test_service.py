"""The metrics service on the bus, beside a vm service that the test plays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from services.metrics.service import setup
from shared.bus.contract import Empty, Scope
from shared.bus.endpoint import Endpoint
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import service as service_contract
from shared.contracts import vm as vm_contract
from shared.contracts.metrics import FIGURES, SAMPLE, HostFigures
from shared.contracts.vm import Cause, HostCapabilities, PowerState, VmState, VmStateChanged
from shared.service import Service

REAL = "a0000000-0000-4000-8000-00000000000a"
SIMULATED = "b0000000-0000-4000-8000-00000000000b"
GIB = 1 << 30

HAS = HostCapabilities(
    backend="simulator",
    accel="simulated",
    version="1",
    cpu_count=8,
    cpu_model="",
    cpu_vendor="",
    cpu_speed=0,
    cpu_flags="",
    memory_total=32 * GIB,
    memory_overhead=0,
    capabilities=[],
)


def vm(uuid: str, seq: int = 1, state: PowerState = PowerState.RUNNING, pid: int = 0) -> VmState:
    return VmState(uuid=uuid, ref="", power_state=state, pid=pid, memory_actual=GIB, vcpus=1, seq=seq)


class Pool:
    """A metrics service for one real and one simulated host, and the vm service of both."""

    def __init__(self, broker: MemoryBroker, client: Endpoint) -> None:
        self.broker = broker
        self.client = client
        self.vms: dict[str, list[VmState]] = {REAL: [], SIMULATED: []}
        self.samples: asyncio.Queue[HostFigures] = asyncio.Queue()

    async def serve_vms(self) -> None:
        for host in self.vms:
            await self.client.serve(vm_contract.LIST, self._list(host), host=host)
            await self.client.serve(vm_contract.CAPABILITIES, self._capabilities, host=host)
            await self.client.start_consuming("vm", host=host)

    def _list(self, host: str):  # type: ignore[no-untyped-def]
        async def listed(_: Empty) -> vm_contract.VmList:
            return vm_contract.VmList(vms=self.vms[host])

        return listed

    async def _capabilities(self, _: Empty) -> HostCapabilities:
        return HAS

    async def changed(self, host: str, state: VmState) -> None:
        event = VmStateChanged(host=host, state=state, cause=Cause.REQUEST)
        await self.client.publish(vm_contract.STATE, event, host=host)

    async def sample_with(self, host: str, vms: set[str]) -> HostFigures:
        """The next published sample of a host that counts exactly these VMs."""
        async with asyncio.timeout(10):
            while True:
                sample = await self.samples.get()
                if sample.host == host and {figure.vm for figure in sample.vms} == vms:
                    return sample


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    broker = MemoryBroker()
    pool = Pool(broker, await broker.connect("client"))
    await pool.client.subscribe(FIGURES, lambda sample, _: pool.samples.put_nowait(sample))
    config = Config(
        service="metrics",
        state_dir=str(tmp_path),
        bus=BusConfig(url="memory:"),
        hosts=[
            HostConfig(uuid=REAL, name="a", address="127.0.0.11"),
            HostConfig(uuid=SIMULATED, name="b", address="127.0.0.12", simulated=True),
        ],
        options={"interval": 0.05},
    )
    service = Service(config, await broker.connect("metrics"))
    await setup(service)
    await service.open_queues()
    yield pool
    await service.close()
    await pool.client.close()


async def test_hosts_are_sampled_before_any_vm_service_answers(pool: Pool) -> None:
    real = await pool.sample_with(REAL, set())
    assert real.memory_total > 0
    assert real.cpus >= 1
    await pool.sample_with(SIMULATED, set())


async def test_vms_are_found_when_the_vm_service_comes(pool: Pool) -> None:
    pool.vms[REAL] = [vm("mine", pid=os.getpid())]
    pool.vms[SIMULATED] = [vm("theirs")]
    await pool.serve_vms()
    mine = (await pool.sample_with(REAL, {"mine"})).vms[0]
    assert mine.memory == GIB
    theirs = await pool.sample_with(SIMULATED, {"theirs"})
    assert (theirs.cpus, theirs.memory_total, theirs.memory_free) == (8, 32 * GIB, 31 * GIB)


async def test_vms_come_and_go_with_their_events(pool: Pool) -> None:
    await pool.serve_vms()
    await pool.sample_with(SIMULATED, set())
    await pool.changed(SIMULATED, vm("a", seq=1))
    await pool.sample_with(SIMULATED, {"a"})
    await pool.changed(SIMULATED, vm("a", seq=3, state=PowerState.HALTED))
    await pool.sample_with(SIMULATED, set())
    await pool.changed(SIMULATED, vm("a", seq=2))  # late
    await pool.changed(SIMULATED, vm("b", seq=1))
    await pool.sample_with(SIMULATED, {"b"})


async def test_the_latest_sample_is_there_for_the_asking(pool: Pool) -> None:
    published = await pool.sample_with(REAL, set())
    asked = await pool.client.call(SAMPLE, Empty(), host=REAL)
    assert asked.host == REAL
    assert asked.time >= published.time


async def test_gauges_of_a_vm_end_with_it(pool: Pool) -> None:
    await pool.changed(SIMULATED, vm("a", seq=1))
    await pool.sample_with(SIMULATED, {"a"})
    metrics = service_contract.metrics("metrics", Scope.HOST)
    text = (await pool.client.call(metrics, Empty(), host=REAL)).text
    assert f'vm_memory_bytes{{host="{SIMULATED}",vm="a"}}' in text
    assert f'host_memory_total_bytes{{host="{REAL}"}}' in text
    await pool.changed(SIMULATED, msgspec.structs.replace(vm("a", seq=2), power_state=PowerState.HALTED))
    await pool.sample_with(SIMULATED, set())
    assert 'vm="a"' not in (await pool.client.call(metrics, Empty(), host=REAL)).text
