"""Disks that have no room for what a guest writes, or fail: one QEMU whose disk is on a tiny file system."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.vm import disk_trouble
from services.vm.backend import Expected
from services.vm.qemu.disks import nodes
from services.vm.simulator.backend import SimulatorBackend
from services.vm.simulator.disks import SimulatedDisks
from shared.bus.contract import Empty
from shared.bus.endpoint import Endpoint
from shared.bus.interface import BusError
from shared.contracts import vm as contract
from shared.contracts.vm import Cause, PowerState, VmId, VmStart
from shared.errors import ApiError
from tests.vm import specs
from tests.vm.consoles import ConsoleClient
from tests.vm.images import MB, Images
from tests.vm.neighbours import HOST, Neighbours, Pool


@pytest.fixture
def full_folder(short_folder: Path) -> Iterator[Path]:
    """Two megabytes."""
    folder = short_folder / "disks"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)])
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
async def pool(short_folder: Path, full_folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    monkeypatch.setattr(disk_trouble, "FIRST_TRY", 0.3)
    monkeypatch.setattr(disk_trouble, "LONGEST_PAUSE", 0.3)
    monkeypatch.setattr(disk_trouble, "HOLDS_AFTER", 0.3)
    made = Pool(short_folder)
    await made.open()
    near = made.neighbours[HOST] = Neighbours(full_folder)
    await near.serve(await made.connected("neighbours"), HOST)
    yield made
    if not made.services:
        await made.start_service(backend="qemu")
    for state in (await made.bus.call(contract.LIST, Empty(), host=HOST)).vms:  # else it keeps the folder busy
        await made.bus.call(contract.SHUTDOWN, contract.VmShutdown(vm=state.uuid), host=HOST)
    await made.close()


def remount(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def spoil(image: Path) -> None:
    """Nothing of it can be read: its first table is said to be where none can be."""
    with image.open("r+b") as file:
        file.seek(40)
        first_table = int.from_bytes(file.read(8), "big")
        file.seek(first_table)
        file.write((1 << 63 | 0x200).to_bytes(8, "big"))


@pytest.mark.qemu
async def test_a_vm_hears_of_errors_is_paused_without_room_and_goes_on_by_itself_with_nothing_lost(
    pool: Pool, full_folder: Path, guest_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"backend": "qemu", "accel": "tcg", "guest_dir": str(guest_dir)}
    service = await pool.start_service(**options)
    images = Images(full_folder, real=True)
    vbd = specs.disk("0", location="disk")
    await images.make("disk", 8 * MB)
    broken = specs.disk("1", location="broken", mode="RO")
    spoil(Path(await images.make("broken", MB)))
    vm = specs.vm(vbds=[vbd, broken])
    await pool.bus.call(contract.START, VmStart(vm=vm), host=HOST)
    endpoint = await pool.bus.call(contract.CONSOLE, contract.ConsoleRequest(vm=vm.uuid, protocol="vt100"), host=HOST)
    console = await ConsoleClient.connect(endpoint.path)
    await console.until(b"login: ")
    # its kernel has looked for partitions
    error = await pool.heard(lambda event: event.cause is Cause.DISK_ERROR)
    assert (error.vbd, error.state.power_state) == (broken.ref, PowerState.RUNNING)
    console.type(b"root\n")
    await console.until(b"# ")
    console.type(b"tr '\\0' A < /dev/zero | head -c 6291456 > /dev/vda && sync && echo do''ne\n")

    told = await pool.state(vm.uuid, PowerState.PAUSED, Cause.DISK_FULL)
    assert told.state.stalled == vbd.ref
    # tries fail without anybody hearing of them, and one that somebody asks for is told as another stop
    pool.events.clear()
    await pool.bus.call(contract.UNPAUSE, VmId(vm=vm.uuid), host=HOST)
    await pool.state(vm.uuid, PowerState.PAUSED, Cause.DISK_FULL)
    assert not any(event.cause is Cause.DISK_ROOM for event in pool.events)
    assert b"done" not in console.seen
    await console.close()

    await pool.close_service(service)
    pool.events.clear()
    monkeypatch.setattr(disk_trouble, "FIRST_TRY", 60.0)
    service = await pool.start_service(**options)
    found = await pool.bus.call(contract.QUERY, VmId(vm=vm.uuid), host=HOST)
    assert (found.power_state, found.stalled) == (PowerState.PAUSED, vbd.ref)
    await pool.close_service(service)

    await asyncio.to_thread(remount, full_folder, "64m")
    monkeypatch.setattr(disk_trouble, "FIRST_TRY", 0.1)
    await pool.start_service(**options)
    told = await pool.state(vm.uuid, PowerState.RUNNING, Cause.DISK_ROOM)
    assert told.state.stalled == ""
    endpoint = await pool.bus.call(contract.CONSOLE, contract.ConsoleRequest(vm=vm.uuid, protocol="vt100"), host=HOST)
    console = await ConsoleClient.connect(endpoint.path)
    await console.until(b"done")
    await console.close()
    await pool.bus.call(contract.SHUTDOWN, contract.VmShutdown(vm=vm.uuid), host=HOST)
    assert await images.holds(images.path("disk"), ord("A"), 0, 6 * MB)


@pytest.mark.parametrize(
    ("path", "device"),
    [("/machine/peripheral/vbd-12/virtio-backend", "12"), ("vbd-3", "3"), ("/machine/unattached/device[3]", "")],
)
def test_an_object_of_a_disk_names_its_device(path: str, device: str) -> None:
    assert nodes.device_of_path(path) == device


@pytest.fixture
async def simulated(short_folder: Path) -> AsyncIterator[Pool]:
    made = Pool(short_folder)
    await made.open()
    await made.start_service()
    yield made
    await made.close()


async def with_a_running_vm(pool: Pool, monkeypatch: pytest.MonkeyPatch, *answers: str | ApiError) -> contract.VmSpec:
    """`answers`: what the hypervisor says of the VM to the next process of the service; the last one from then on."""
    left = list(answers)

    async def stalled(self: SimulatedDisks, vm: str) -> str:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, ApiError):
            raise answer
        return answer

    vm = specs.vm(vbds=[specs.disk("1")])
    await pool.bus.call(contract.START, VmStart(vm=vm), host=HOST)
    monkeypatch.setattr(SimulatedDisks, "stalled", stalled)
    await restarted(pool)
    return vm


async def restarted(pool: Pool) -> None:
    await pool.close_service(pool.services[0])
    pool.events.clear()
    await pool.start_service()


async def test_a_hypervisor_that_does_not_answer_is_asked_again(
    simulated: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_trouble, "ASK_AGAIN", 0.01)
    vm = await with_a_running_vm(simulated, monkeypatch, ApiError("INTERNAL_ERROR", "no connection"), "1")
    told = await simulated.state(vm.uuid, PowerState.PAUSED, Cause.DISK_FULL)
    assert told.state.stalled == specs.disk("1").ref


async def test_a_vm_whose_full_disk_is_closed_when_it_is_looked_at_goes_on_all_the_same(
    simulated: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closed the disk leaves a paused VM as it is."""
    vm = await with_a_running_vm(simulated, monkeypatch, "1")
    await simulated.state(vm.uuid, PowerState.PAUSED, Cause.DISK_FULL)

    async def closed(self: SimulatedDisks, vm: str) -> str:
        return ""

    monkeypatch.setattr(SimulatedDisks, "stalled", closed)
    monkeypatch.setattr(disk_trouble, "FIRST_TRY", 0.01)
    monkeypatch.setattr(disk_trouble, "HOLDS_AFTER", 0.01)
    await restarted(simulated)
    told = await simulated.state(vm.uuid, PowerState.RUNNING, Cause.DISK_ROOM)
    assert told.state.stalled == ""


async def test_a_vm_that_has_gone_on_when_the_service_starts_has_no_disk_without_room(
    simulated: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former process was killed between a try and noting that it had succeeded."""
    vm = await with_a_running_vm(simulated, monkeypatch, "1")
    await simulated.state(vm.uuid, PowerState.PAUSED, Cause.DISK_FULL)

    async def running(self: SimulatorBackend, expected: Sequence[Expected]) -> dict[str, PowerState]:
        found = await found_again(self, expected)
        return dict.fromkeys(found, PowerState.RUNNING)

    async def has_room(self: SimulatedDisks, vm: str) -> str:
        return ""

    found_again = SimulatorBackend.open
    monkeypatch.setattr(SimulatorBackend, "open", running)
    monkeypatch.setattr(SimulatedDisks, "stalled", has_room)
    await restarted(simulated)
    found = await simulated.bus.call(contract.QUERY, VmId(vm=vm.uuid), host=HOST)
    assert (found.power_state, found.stalled) == (PowerState.RUNNING, "")


async def test_an_error_of_which_nobody_could_be_told_is_told_with_the_next(
    simulated: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = specs.vm(vbds=[specs.disk("1")])
    await simulated.bus.call(contract.START, VmStart(vm=vm), host=HOST)
    backends: list[SimulatorBackend] = []
    found_again = SimulatorBackend.open

    async def noted(self: SimulatorBackend, expected: Sequence[Expected]) -> dict[str, PowerState]:
        backends.append(self)
        return await found_again(self, expected)

    monkeypatch.setattr(SimulatorBackend, "open", noted)
    await restarted(simulated)
    publish, refused = Endpoint.publish, asyncio.Event()

    async def refuse_once(self: Endpoint, topic: Any, event: Any, **more: Any) -> None:
        if getattr(event, "cause", None) is Cause.DISK_ERROR and not refused.is_set():
            refused.set()
            raise BusError("INTERNAL_ERROR", "the broker is away")
        await publish(self, topic, event, **more)

    monkeypatch.setattr(Endpoint, "publish", refuse_once)
    backends[0].disk_news.failed(vm.uuid, "1")
    await refused.wait()
    await simulated.bus.call(contract.UNPAUSE, VmId(vm=vm.uuid), host=HOST)  # the VM's turn is over
    backends[0].disk_news.failed(vm.uuid, "1")
    told = await simulated.heard(lambda event: event.cause is Cause.DISK_ERROR)
    assert told.vbd == specs.disk("1").ref
