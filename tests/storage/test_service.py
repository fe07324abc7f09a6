"""The service on the bus: every method, progress and cancellation of copies, metrics, stopping."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.storage.service import setup
from shared.bus.context import CallContext
from shared.bus.contract import Empty, Scope
from shared.bus.endpoint import Endpoint
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import service as service_contract
from shared.contracts import storage as contract
from shared.contracts.task import CANCEL, PROGRESS, Cancel, Progress
from shared.errors import ApiError
from shared.service import Service
from tests.storage.support import HOST_A, HOST_B, MIB, SR, disk, new_uuid


@dataclass
class Running:
    """A storage service for two hosts, and somebody who calls it."""

    broker: MemoryBroker
    service: Service
    client: Endpoint
    folder: Path


def config(tmp_path: Path, **options: object) -> Config:
    return Config(
        service="storage",
        state_dir=str(tmp_path / "state"),
        bus=BusConfig(url="memory:"),
        hosts=[
            HostConfig(uuid=HOST_A, name="a", address="127.0.0.11"),
            HostConfig(uuid=HOST_B, name="b", address="127.0.0.12", simulated=True),
        ],
        options=dict(options),
    )


async def start(broker: MemoryBroker, settings: Config) -> Service:
    settings.state.mkdir(exist_ok=True)
    service = Service(settings, await broker.connect("storage"))
    await setup(service)
    await service.open_queues()
    return service


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    broker = MemoryBroker()
    service = await start(broker, config(tmp_path))
    client = await broker.connect("client")
    yield Running(broker, service, client, tmp_path / "sr")
    await client.close()
    await service.close()


async def with_sr(running: Running, kind: str = "file") -> None:
    device = {"location": str(running.folder)} if kind == "file" else {}
    create = contract.SrCreate(sr=SR, type=kind, device_config=device)
    await running.client.call(contract.SR_CREATE, create, host=HOST_A)
    attach = contract.SrAttach(sr=SR, type=kind, device_config=device)
    for host in (HOST_A, HOST_B):
        await running.client.call(contract.SR_ATTACH, attach, host=host)


async def with_disk(running: Running, size: int = 4 * MIB) -> contract.VdiInfo:
    request = contract.VdiCreate(
        sr=SR, uuid=new_uuid(), virtual_size=size, name_label="root", type="system", sm_config={"k": "v"}
    )
    return await running.client.call(contract.VDI_CREATE, request, host=HOST_A)


async def test_the_life_of_a_disk(running: Running) -> None:
    call = running.client.call
    await with_sr(running)
    made = await with_disk(running)
    assert (made.name_label, made.type, made.sm_config, made.virtual_size) == ("root", "system", {"k": "v"}, 4 * MIB)
    opened = await call(contract.OPEN, contract.Open(disks=[disk(made.location)]), host=HOST_A)
    assert opened.backends[0].path == str(running.folder / f"{made.location}.qcow2")
    held = await call(contract.DATAPATHS, Empty(), host=HOST_A)
    assert [(dp.dp, dp.state) for dp in held.datapaths] == [("vbd/vm/0", "activated")]
    assert (await call(contract.DATAPATHS, Empty(), host=HOST_B)).datapaths == []
    await call(contract.CLOSE, contract.Close(dps=["vbd/vm/0"]), host=HOST_A)
    grown = await call(
        contract.VDI_RESIZE, contract.VdiResize(sr=SR, location=made.location, virtual_size=8 * MIB), host=HOST_A
    )
    assert grown.virtual_size == 8 * MIB
    clone = await call(
        contract.VDI_CLONE, contract.VdiClone(sr=SR, location=made.location, uuid=new_uuid()), host=HOST_A
    )
    scan = await call(contract.SR_SCAN, contract.SrRef(sr=SR), host=HOST_B)
    assert {found.location for found in scan.disks} == {made.location, clone.location}
    assert scan.stat.virtual_allocation == 16 * MIB
    assert 0 < scan.stat.physical_utilisation < scan.stat.physical_size
    for location in (made.location, clone.location):
        await call(contract.VDI_DESTROY, contract.VdiRef(sr=SR, location=location), host=HOST_A)
    await call(contract.SR_DETACH, contract.SrRef(sr=SR), host=HOST_B)
    await call(contract.SR_DESTROY, contract.SrRef(sr=SR), host=HOST_A)
    assert not os.path.lexists(running.folder)  # noqa: ASYNC240


async def test_it_says_which_sr_types_it_runs(running: Running) -> None:
    drivers = (await running.client.call(contract.DRIVERS, Empty(), host=HOST_A)).drivers
    assert {"file", "ext", "nfs", "smb", "iso", "udev", "lvm", "memory", "dummy"} <= {driver.type for driver in drivers}
    with pytest.raises(ApiError, match="SR_UNKNOWN_DRIVER") as refused:
        await running.client.call(
            contract.SR_CREATE, contract.SrCreate(sr=SR, type="floppy", device_config={}), host=HOST_A
        )
    assert refused.value.params == ["floppy"]


async def test_slow_drivers_hold_up_only_who_needs_them(tmp_path: Path) -> None:
    """SRs of other types are attached again and used meanwhile; one of a type that is not found yet is waited for."""
    drivers, answer = tmp_path / "drivers", tmp_path / "answer"
    drivers.mkdir()
    os.mkfifo(answer)
    (drivers / "SlowSR").write_text(f'#!/bin/sh\nread line < {answer}\necho "$line"\n')
    (drivers / "SlowSR").chmod(0o755)
    broker = MemoryBroker()
    settings = config(tmp_path, smapiv1_dir=str(drivers), smapiv1_private=False)
    client = await broker.connect("client")
    for _ in range(2):
        service = await start(broker, settings)
        running = Running(broker, service, client, tmp_path / "sr")
        await with_sr(running)
        asking = asyncio.create_task(client.call(contract.DRIVERS, Empty(), host=HOST_A))
        unknown = contract.SrProbe(type="slow", device_config={})
        probing = asyncio.create_task(client.call(contract.SR_PROBE, unknown, host=HOST_A))
        await with_disk(running)
        assert not asking.done()
        assert not probing.done()
        await asyncio.to_thread(answer.write_text, "garbage\n")
        with pytest.raises(ApiError, match="SR_UNKNOWN_DRIVER"):
            await probing
        assert "file" in {driver.type for driver in (await asking).drivers}
        await service.close()
    await client.close()


async def test_a_copy_tells_its_task_how_far_it_is(running: Running) -> None:
    await with_sr(running)
    source = await with_disk(running)
    told: asyncio.Queue[float] = asyncio.Queue()

    def listen(progress: Progress, _: str) -> None:
        told.put_nowait(progress.progress)

    await running.client.subscribe(PROGRESS, listen, task="OpaqueRef:task")
    copy = await running.client.call(
        contract.VDI_COPY,
        contract.VdiClone(sr=SR, location=source.location, uuid=new_uuid(), name_label="copy"),
        host=HOST_A,
        context=CallContext(task="OpaqueRef:task"),
    )
    assert copy.name_label == "copy"
    assert 0 <= await asyncio.wait_for(told.get(), 5) <= 1
    assert (await running.client.call(contract.DATAPATHS, Empty(), host=HOST_A)).datapaths == []


async def test_a_copy_whose_task_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    program = tmp_path / "qemu-img"
    await asyncio.to_thread(
        program.write_text,
        f'#!/bin/sh\n[ "$1" = convert ] && echo >{started} && exec sleep 60\nexec {shutil.which("qemu-img")} "$@"\n',
    )
    await asyncio.to_thread(program.chmod, 0o700)
    broker = MemoryBroker()
    service = await start(broker, config(tmp_path, qemu_img=str(program)))
    running = Running(broker, service, await broker.connect("client"), tmp_path / "sr")
    await with_sr(running)
    source = await with_disk(running)
    before = sorted(os.listdir(running.folder))
    request = contract.VdiClone(sr=SR, location=source.location, uuid=new_uuid())
    context = CallContext(task="OpaqueRef:task")
    copying = asyncio.create_task(running.client.call(contract.VDI_COPY, request, host=HOST_A, context=context))
    await asyncio.to_thread(started.read_bytes)
    await running.client.publish(CANCEL, Cancel(task=context.task), task=context.task)
    with pytest.raises(ApiError, match="TASK_CANCELLED"):
        await asyncio.wait_for(copying, 5)
    assert [name for name in sorted(os.listdir(running.folder)) if name != ".leases"] == [
        name for name in before if name != ".leases"
    ]
    await running.client.call(contract.OPEN, contract.Open(disks=[disk(source.location)]), host=HOST_A)
    await running.client.close()
    await service.close()


async def test_another_host_in_the_same_process_is_another_host(running: Running) -> None:
    await with_sr(running)
    made = await with_disk(running)
    wanted = contract.Open(disks=[disk(made.location)])
    await running.client.call(contract.OPEN, wanted, host=HOST_A)
    with pytest.raises(ApiError, match="VDI_IN_USE"):
        await running.client.call(contract.OPEN, wanted, host=HOST_B)
    assert (await running.client.call(contract.FENCE, contract.Fence(host=HOST_A), host=HOST_B)).leases == 1
    await running.client.call(contract.OPEN, wanted, host=HOST_B)


async def test_its_figures_are_in_prometheus_form(running: Running) -> None:
    await with_sr(running, "dummy")
    made = await with_disk(running)
    await running.client.call(contract.OPEN, contract.Open(disks=[disk(made.location)]), host=HOST_A)
    metrics = service_contract.metrics("storage", Scope.HOST)
    text = (await running.client.call(metrics, Empty(), host=HOST_A)).text
    assert f'storage_datapaths{{host="{HOST_A}",state="activated"}} 1.0' in text
    assert f'storage_srs_attached{{host="{HOST_B}"}} 1.0' in text
    assert 'storage_calls_total{method="open",outcome="ok"} 1.0' in text


async def test_who_listens_hears_that_images_are_merged_and_the_figures_say_so(tmp_path: Path) -> None:
    broker = MemoryBroker()
    service = await start(broker, config(tmp_path, coalesce_delay=0.01))
    running = Running(broker, service, await broker.connect("client"), tmp_path / "sr")
    ended = asyncio.Event()

    def listen(merge: contract.Merge, _: str) -> None:
        if merge.event == "end":
            ended.set()

    await running.client.subscribe(contract.MERGES, listen, host=HOST_A)
    await running.client.subscribe(contract.MERGES, listen, host=HOST_B)
    await with_sr(running)
    made = await with_disk(running)
    for _ in range(2):  # the second one's image has the first one's below it
        snapshot = contract.VdiClone(sr=SR, location=made.location, uuid=new_uuid(), snapshot=True)
        taken = await running.client.call(contract.VDI_CLONE, snapshot, host=HOST_A)
        await running.client.call(contract.VDI_DESTROY, contract.VdiRef(sr=SR, location=taken.location), host=HOST_A)
    async with asyncio.timeout(20):
        await ended.wait()
    metrics = service_contract.metrics("storage", Scope.HOST)
    text = (await running.client.call(metrics, Empty(), host=HOST_A)).text
    assert "storage_merges_total{host=" in text
    assert f'storage_merges_failing{{host="{HOST_A}",sr="{SR}"}} 0.0' in text
    await running.client.close()
    await service.close()


async def test_after_a_restart_it_serves_the_same_disks(tmp_path: Path) -> None:
    broker = MemoryBroker()
    service = await start(broker, config(tmp_path))
    running = Running(broker, service, await broker.connect("client"), tmp_path / "sr")
    await with_sr(running)
    made = await with_disk(running)
    await running.client.call(contract.OPEN, contract.Open(disks=[disk(made.location)]), host=HOST_A)
    await service.close()
    again = await start(broker, config(tmp_path))
    held = (await running.client.call(contract.DATAPATHS, Empty(), host=HOST_A)).datapaths
    assert [dp.location for dp in held] == [made.location]
    await running.client.close()
    await again.close()


async def test_simulated_disks_open_by_the_hundred(running: Running) -> None:
    """The storm of VM starts on the simulator: a few hundred opens and closes a second, with durable state."""
    await with_sr(running, "dummy")
    made = await asyncio.gather(*(with_disk(running) for _ in range(100)))
    loop = asyncio.get_running_loop()
    begin = loop.time()

    async def cycle(location: str) -> None:
        dp = f"vbd/{location}/0"
        await running.client.call(contract.OPEN, contract.Open(disks=[disk(location, dp)]), host=HOST_B)
        await running.client.call(contract.CLOSE, contract.Close(dps=[dp]), host=HOST_B)

    await asyncio.gather(*(cycle(one.location) for one in made))
    assert loop.time() - begin < 2.0
