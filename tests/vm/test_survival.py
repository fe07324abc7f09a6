"""VMs on QEMU and a service that is killed, in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pool.guest.build import ARGS
from services.vm.options import host_folder_name
from services.vm.qemu.process import Identity, end, identify, with_argument
from shared.bus.contract import Empty
from shared.config import HostConfig
from shared.contracts import vm as contract
from shared.contracts.vm import Cause, ConsoleRequest, PowerState, VmId, VmShutdown, VmSpec, VmStart, VmState
from tests.vm import specs
from tests.vm.consoles import ConsoleClient
from tests.vm.neighbours import HOST
from tests.vm.processes import VmService


def is_about(uuid: str, cause: Cause, event: contract.VmStateChanged) -> bool:
    return (event.state.uuid, event.cause) == (uuid, cause)


pytestmark = pytest.mark.qemu


class Machine:
    """A folder that services come and go on."""

    def __init__(self, folder: Path, guest_dir: Path) -> None:
        self.folder = folder
        self._guest_dir = guest_dir
        self._services: list[VmService] = []
        (folder / "disks").mkdir()

    @property
    def sockets(self) -> Path:
        return self.folder / "run" / host_folder_name(HostConfig(uuid=HOST, name="", address=""))

    def processes(self) -> list[Identity]:
        return [identity for identity, path in with_argument("-pidfile") if Path(path).parent == self.sockets]

    def leftovers(self) -> list[Path]:
        return [*self.sockets.iterdir(), *(self.folder / "state" / "hosts" / HOST / "logs").iterdir()]

    async def service(self, **settings: Any) -> VmService:
        service = await VmService.start(self.folder, self._guest_dir, **settings)
        self._services.append(service)
        return service

    async def close(self) -> None:
        for service in self._services:
            await service.stop()
        for identity in self.processes():
            await end(identity, 10)


@pytest.fixture
async def machine(short_folder: Path, guest_dir: Path) -> AsyncIterator[Machine]:
    made = Machine(short_folder, guest_dir)
    yield made
    await made.close()


async def start(service: VmService, vm: VmSpec) -> VmState:
    state: VmState = await service.call(contract.START, VmStart(vm=vm))
    return state


async def test_a_vm_with_devices_survives_kill_9_of_the_service_and_shuts_down_cleanly_after(machine: Machine) -> None:
    image = await asyncio.create_subprocess_exec(
        "qemu-img", "create", "-q", "-f", "qcow2", str(machine.folder / "disks" / "disk-0.qcow2"), "64M"
    )
    assert await image.wait() == 0
    vm = specs.vm(vbds=[specs.disk("0"), specs.empty_cd()], vifs=[specs.vif()])
    first = await machine.service()
    before = await start(first, vm)
    assert (before.power_state, before.accel) == (PowerState.RUNNING, "tcg")
    assert identify(before.pid) is not None
    await first.kill()

    second = await machine.service()
    after = (await second.heard(lambda event: event.state.uuid == vm.uuid)).state
    assert (after.pid, after.domid, after.power_state) == (before.pid, before.domid, PowerState.RUNNING)
    assert (after.start_time, after.vbds, after.vifs) == (before.start_time, before.vbds, before.vifs)
    assert after.seq > before.seq
    endpoint = await second.call(contract.CONSOLE, ConsoleRequest(vm=vm.uuid, protocol="vt100"))
    console = await ConsoleClient.connect(endpoint.path)
    await console.until(b"tiny-guest login: ")
    console.type(b"root\n")
    await console.until(b"# ")
    console.type(b"until ip addr show eth0 | grep 10.0.2.15; do sleep 0.1; done; cat /sys/block/vda/size\n")
    await console.until(b"131072")
    assert b"inet 10.0.2.15" in console.seen
    state = await second.call(contract.SHUTDOWN, VmShutdown(vm=vm.uuid, clean=True, timeout=30))
    assert state.power_state is PowerState.HALTED
    assert identify(before.pid) is None
    assert not machine.leftovers()
    assert sorted(await second.calls()) == ["close", "unplug"]
    await console.close()


@pytest.mark.parametrize("hang_at", ["create", "survive", "destroy"])
async def test_a_vm_that_was_half_built_or_half_ended_when_the_service_was_killed_is_ended(
    machine: Machine, hang_at: str
) -> None:
    vm = specs.vm(vifs=[specs.vif()])
    first = await machine.service(hang_at=hang_at)
    starting = asyncio.create_task(start(first, vm))
    if hang_at == "destroy":
        await starting
        starting = asyncio.create_task(first.call(contract.SHUTDOWN, VmShutdown(vm=vm.uuid)))
    await first.hanging.wait()
    assert len(machine.processes()) == (0 if hang_at == "create" else 1)
    await first.kill()
    starting.cancel()

    second = await machine.service()
    event = await second.heard(lambda event: event.state.uuid == vm.uuid)
    assert event.state.power_state is PowerState.HALTED
    assert not machine.processes()
    assert not machine.leftovers()
    assert await second.calls() == ["unplug"]
    assert (await start(second, vm)).power_state is PowerState.RUNNING
    await second.call(contract.SHUTDOWN, VmShutdown(vm=vm.uuid))
    assert not machine.processes()


async def test_a_process_without_a_record_is_ended(machine: Machine) -> None:
    vm = specs.vm()
    first = await machine.service()
    await start(first, vm)
    await first.kill()
    for record in (machine.folder / "state" / "hosts" / HOST / "vms").iterdir():
        record.write_text("{torn")
    second = await machine.service()
    assert (await second.call(contract.LIST, Empty())).vms == []
    assert not machine.processes()
    assert not machine.leftovers()


async def test_a_killed_qemu_is_noticed(machine: Machine) -> None:
    service = await machine.service()
    vm, restarted = specs.vm(vifs=[specs.vif()]), specs.vm(actions_after_crash="restart")
    ended = specs.vm(actions_after_crash="restart")
    state, other, third = [await start(service, one) for one in (vm, restarted, ended)]
    for pid in (state.pid, other.pid):
        os.kill(pid, signal.SIGKILL)
    os.kill(third.pid, signal.SIGTERM)
    event = await service.heard(lambda event: event.state.uuid == vm.uuid and event.cause is Cause.PROCESS_DIED)
    assert event.state.power_state is PowerState.HALTED
    event = await service.heard(lambda event: event.state.uuid == restarted.uuid and event.state.domid > other.domid)
    assert (event.state.power_state, event.cause) == (PowerState.RUNNING, Cause.PROCESS_DIED)
    assert (await service.call(contract.QUERY, VmId(vm=vm.uuid))).power_state is PowerState.HALTED
    # somebody told it to end: that is no crash to recover from
    event = await service.heard(lambda event: event.state.uuid == ended.uuid and event.cause is Cause.PROCESS_DIED)
    assert event.state.power_state is PowerState.HALTED


def wait_for_shutdown(events: Path) -> None:
    """QEMU writes the file by itself; there is nobody to tell."""
    deadline = time.monotonic() + 60
    while b'"SHUTDOWN"' not in events.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def test_what_happened_while_no_service_ran_is_acted_upon_when_it_is_back(machine: Machine) -> None:
    first = await machine.service()
    causes = {
        "poweroff": (Cause.GUEST_SHUTDOWN, PowerState.HALTED),
        "reboot": (Cause.GUEST_REBOOT, PowerState.RUNNING),
        "killed": (Cause.PROCESS_DIED, PowerState.RUNNING),
        "terminated": (Cause.PROCESS_DIED, PowerState.HALTED),
    }
    vms = {then: specs.vm(pv_args=f"{ARGS} tiny.then={then}", actions_after_crash="restart") for then in causes}
    states = {then: await start(first, vm) for then, vm in vms.items()}
    await first.kill()
    os.kill(states["killed"].pid, signal.SIGKILL)
    os.kill(states["terminated"].pid, signal.SIGTERM)
    logs = machine.folder / "state" / "hosts" / HOST / "logs"
    for then in ("poweroff", "reboot"):
        await asyncio.to_thread(wait_for_shutdown, logs / f"{states[then].domid}.events")
    second = await machine.service()
    for then, (cause, power_state) in causes.items():
        uuid = vms[then].uuid
        event = await second.heard(partial(is_about, uuid, cause))
        assert event.state.power_state is power_state
        if power_state is PowerState.RUNNING:
            assert event.state.domid > states[then].domid


async def test_a_vm_with_firmware_has_a_graphical_console(machine: Machine) -> None:
    service = await machine.service()
    vm = specs.vm(domain_type="hvm", hvm_boot_params={"order": "dc"}, vbds=[specs.empty_cd()])
    state = await start(service, vm)
    assert {console.protocol for console in state.consoles} == {"rfb", "vt100"}
    endpoint = await service.call(contract.CONSOLE, ConsoleRequest(vm=vm.uuid, protocol="rfb"))
    screen = await ConsoleClient.connect(endpoint.path)
    await screen.until(b"RFB 003", 5)
    await screen.close()
