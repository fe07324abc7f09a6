"""The service as others see it, over the bus, on simulated hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from shared.bus.contract import Empty, Scope
from shared.contracts import service as service_contract
from shared.contracts import vm as contract
from shared.contracts.vm import (
    Cause,
    ConsoleRequest,
    PowerState,
    VmId,
    VmReboot,
    VmShutdown,
    VmSpec,
    VmStart,
    VmState,
)
from shared.errors import ApiError
from tests.vm import specs
from tests.vm.consoles import ConsoleClient
from tests.vm.neighbours import HOST, Neighbours, Pool

REFUSED = ApiError("SR_BACKEND_FAILURE_46", "", "the disk is broken", "")


@pytest.fixture
async def pool(short_folder: Path) -> AsyncIterator[Pool]:
    made = Pool(short_folder)
    await made.open()
    yield made
    await made.close()


def full() -> VmSpec:
    return specs.vm(vbds=[specs.disk("0"), specs.disk("1", mode="RO"), specs.empty_cd()], vifs=[specs.vif()])


async def start(pool: Pool, vm: VmSpec, *, paused: bool = False, host: str = HOST) -> VmState:
    return await pool.bus.call(contract.START, VmStart(vm=vm, paused=paused), host=host)


async def query(pool: Pool, vm: VmSpec) -> VmState:
    return await pool.bus.call(contract.QUERY, VmId(vm=vm.uuid), host=HOST)


async def stop(pool: Pool, vm: VmSpec, *, clean: bool = False, timeout: float = 5.0) -> VmState:
    return await pool.bus.call(contract.SHUTDOWN, VmShutdown(vm=vm.uuid, clean=clean, timeout=timeout), host=HOST)


async def expect(code: str, call: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code == code
    return caught.value


def holds_nothing(neighbours: Neighbours) -> bool:
    return not neighbours.open and not neighbours.plugged


async def test_a_started_vm_runs_with_its_devices_and_everybody_is_told(pool: Pool) -> None:
    await pool.start_service()
    vm = full()
    state = await start(pool, vm)
    assert state.power_state is PowerState.RUNNING
    assert state.domid > 0
    assert state.vbds == [vbd.ref for vbd in vm.vbds if vbd.sr]
    assert state.vifs == ["OpaqueRef:vif-0"]
    near = pool.neighbours[HOST]
    assert {dp: disk.writable for dp, disk in near.open.items()} == {
        f"vbd/{vm.uuid}/0": True,
        f"vbd/{vm.uuid}/1": False,
    }
    event = await pool.state(vm.uuid, PowerState.RUNNING)
    assert (event.host, event.cause, event.state) == (HOST, Cause.REQUEST, state)
    assert await query(pool, vm) == state
    assert (await pool.bus.call(contract.LIST, Empty(), host=HOST)).vms == [state]


@pytest.mark.parametrize("clean", [True, False])
async def test_a_shut_down_vm_gives_its_devices_back(pool: Pool, clean: bool) -> None:
    await pool.start_service()
    vm = full()
    started = await start(pool, vm)
    state = await stop(pool, vm, clean=clean)
    assert (state.power_state, state.domid, state.vbds) == (PowerState.HALTED, -1, [])
    assert state.seq > started.seq
    assert holds_nothing(pool.neighbours[HOST])
    assert (await pool.state(vm.uuid, PowerState.HALTED)).cause is Cause.REQUEST
    assert (await query(pool, vm)).power_state is PowerState.HALTED
    assert (await pool.bus.call(contract.LIST, Empty(), host=HOST)).vms == []


async def test_starting_again_with_the_same_configuration_answers_the_same_domain(pool: Pool) -> None:
    await pool.start_service()
    vm = full()
    first = await start(pool, vm)
    assert await start(pool, vm) == first
    assert pool.neighbours[HOST].calls == ["open", "plug"]


async def test_starting_a_running_vm_with_another_configuration_is_a_bad_power_state(pool: Pool) -> None:
    await pool.start_service()
    vm = full()
    await start(pool, vm)
    other = msgspec.structs.replace(vm, vcpus_max=2)
    error = await expect("VM_BAD_POWER_STATE", start(pool, other))
    assert error.params == [vm.ref, "Halted", "Running"]


async def test_operations_on_a_halted_vm_are_a_bad_power_state(pool: Pool) -> None:
    await pool.start_service()
    vm = full()
    id = VmId(vm=vm.uuid)
    calls = [
        (stop(pool, vm), "Running"),
        (stop(pool, vm, clean=True), "Running"),
        (pool.bus.call(contract.REBOOT, VmReboot(vm=vm), host=HOST), "Running"),
        (pool.bus.call(contract.PAUSE, id, host=HOST), "Running"),
        (pool.bus.call(contract.UNPAUSE, id, host=HOST), "Paused"),
        (pool.bus.call(contract.CONSOLE, ConsoleRequest(vm=vm.uuid, protocol="vt100"), host=HOST), "Running"),
    ]
    for call, expected in calls:
        error = await expect("VM_BAD_POWER_STATE", call)
        assert error.params[1:] == [expected, "Halted"]


async def test_a_vm_can_start_paused_and_be_paused(pool: Pool) -> None:
    await pool.start_service()
    vm = full()
    id = VmId(vm=vm.uuid)
    assert (await start(pool, vm, paused=True)).power_state is PowerState.PAUSED
    assert (await pool.bus.call(contract.UNPAUSE, id, host=HOST)).power_state is PowerState.RUNNING
    assert (await pool.bus.call(contract.PAUSE, id, host=HOST)).power_state is PowerState.PAUSED
    assert (await pool.bus.call(contract.PAUSE, id, host=HOST)).power_state is PowerState.PAUSED
    error = await expect("VM_BAD_POWER_STATE", stop(pool, vm, clean=True))
    assert error.params == [vm.ref, "Running", "Paused"]
    assert (await stop(pool, vm)).power_state is PowerState.HALTED


async def test_a_rebooted_vm_has_a_new_domain_and_configuration_and_was_never_halted(pool: Pool) -> None:
    await pool.start_service()
    vm = full()
    before = await start(pool, vm)
    changed = msgspec.structs.replace(vm, vcpus_max=2, vcpus_at_startup=2, vifs=[])
    after = await pool.bus.call(contract.REBOOT, VmReboot(vm=changed), host=HOST)
    assert after.domid > before.domid
    assert (after.vcpus, after.vifs, after.power_state) == (2, [], PowerState.RUNNING)
    assert not pool.neighbours[HOST].plugged
    await pool.heard(lambda event: event.state.domid == after.domid)
    assert all(event.state.power_state is PowerState.RUNNING for event in pool.events)


async def test_a_reboot_whose_new_domain_fails_leaves_the_vm_halted_and_says_so(pool: Pool) -> None:
    await pool.start_service()
    vm = full()
    await start(pool, vm)
    broken = msgspec.structs.replace(vm, other_config={"sim:fails-to-start": "no"})
    await expect("FAILED_TO_START_EMULATOR", pool.bus.call(contract.REBOOT, VmReboot(vm=broken), host=HOST))
    await pool.state(vm.uuid, PowerState.HALTED)
    assert holds_nothing(pool.neighbours[HOST])


@pytest.mark.parametrize("method", ["open", "plug"])
async def test_a_device_that_cannot_be_had_leaves_nothing_behind(pool: Pool, method: str) -> None:
    await pool.start_service()
    near, vm = pool.neighbours[HOST], full()
    near.refuse[method] = REFUSED
    error = await expect(REFUSED.code, start(pool, vm))
    assert error.params == REFUSED.params
    assert holds_nothing(near)
    assert (await query(pool, vm)).power_state is PowerState.HALTED
    near.refuse.clear()
    assert (await start(pool, vm)).power_state is PowerState.RUNNING


async def test_an_emulator_that_does_not_start_leaves_nothing_behind(pool: Pool) -> None:
    await pool.start_service()
    vm = msgspec.structs.replace(full(), other_config={"sim:fails-to-start": "no memory today"})
    error = await expect("FAILED_TO_START_EMULATOR", start(pool, vm))
    assert error.params == [vm.ref, "simulator", "no memory today"]
    assert holds_nothing(pool.neighbours[HOST])
    await pool.state(vm.uuid, PowerState.HALTED)


async def test_a_start_whose_caller_gives_up_is_undone(pool: Pool) -> None:
    await pool.start_service()
    near, vm = pool.neighbours[HOST], full()
    near.hold_back("plug")
    call = asyncio.create_task(start(pool, vm))
    await near.held["plug"].wait()
    call.cancel()
    await pool.state(vm.uuid, PowerState.HALTED)
    assert holds_nothing(near)


async def test_what_cannot_be_undone_now_is_undone_later(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.vm.host.RELEASE_RETRY", 0.01)
    await pool.start_service()
    near, vm = pool.neighbours[HOST], full()
    near.refuse |= {"plug": REFUSED, "close": ApiError("INTERNAL_ERROR", "storage is out")}
    await expect(REFUSED.code, start(pool, vm))
    assert near.open
    del near.refuse["close"]
    await near.all_closed()
    near.refuse.clear()
    assert (await start(pool, vm)).power_state is PowerState.RUNNING


async def test_a_shutdown_that_cannot_close_its_disks_says_so_and_goes_on_trying(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.vm.host.RELEASE_RETRY", 0.01)
    await pool.start_service()
    near, vm = pool.neighbours[HOST], full()
    await start(pool, vm)
    near.refuse["close"] = ApiError("INTERNAL_ERROR", "storage is out")
    await expect("INTERNAL_ERROR", stop(pool, vm))
    await pool.state(vm.uuid, PowerState.HALTED)
    near.refuse.clear()
    await near.all_closed()


async def test_operations_of_one_vm_run_in_order_and_those_of_others_meanwhile(pool: Pool) -> None:
    await pool.start_service()
    near = pool.neighbours[HOST]
    slow, other = full(), specs.vm()
    release = near.hold_back("open")
    started = asyncio.create_task(start(pool, slow))
    await near.held["open"].wait()
    stopped = asyncio.create_task(stop(pool, slow))
    assert (await start(pool, other)).power_state is PowerState.RUNNING
    assert not stopped.done()
    release.set()
    assert (await started).power_state is PowerState.RUNNING
    assert (await stopped).power_state is PowerState.HALTED


async def test_a_guest_that_ignores_the_power_button_times_out_and_runs_on(pool: Pool) -> None:
    await pool.start_service()
    vm = specs.vm(other_config={"sim:ignores-shutdown": "true"})
    await start(pool, vm)
    error = await expect("VM_SHUTDOWN_TIMEOUT", stop(pool, vm, clean=True, timeout=0.05))
    assert error.params == [vm.ref, "0.05"]
    assert (await query(pool, vm)).power_state is PowerState.RUNNING
    assert (await stop(pool, vm)).power_state is PowerState.HALTED


@pytest.mark.parametrize(
    ("key", "fields", "cause", "power_state"),
    [
        ("sim:guest-shutdown-after", {}, Cause.GUEST_SHUTDOWN, PowerState.HALTED),
        (
            "sim:guest-shutdown-after",
            {"actions_after_shutdown": "restart"},
            Cause.GUEST_SHUTDOWN,
            PowerState.RUNNING,
        ),
        ("sim:guest-reboot-after", {}, Cause.GUEST_REBOOT, PowerState.RUNNING),
        ("sim:guest-reboot-after", {"actions_after_reboot": "destroy"}, Cause.GUEST_REBOOT, PowerState.HALTED),
        ("sim:guest-crash-after", {}, Cause.GUEST_CRASH, PowerState.HALTED),
        ("sim:guest-crash-after", {"actions_after_crash": "preserve"}, Cause.GUEST_CRASH, PowerState.PAUSED),
        ("sim:process-dies-after", {}, Cause.PROCESS_DIED, PowerState.HALTED),
    ],
)
async def test_what_a_guest_does_by_itself_is_acted_upon_and_told(
    pool: Pool, key: str, fields: dict[str, str], cause: Cause, power_state: PowerState
) -> None:
    await pool.start_service()
    vm = specs.vm(vbds=[specs.disk()], other_config={key: "0.01"}, **fields)
    first = await start(pool, vm)
    event = await pool.state(vm.uuid, power_state, cause)
    if power_state is PowerState.HALTED:
        assert holds_nothing(pool.neighbours[HOST])
    if power_state is PowerState.RUNNING:
        assert event.state.domid > first.domid
        await stop(pool, vm)


async def test_a_console_is_a_socket_with_the_login_prompt(pool: Pool) -> None:
    await pool.start_service()
    vm = specs.vm()
    await start(pool, vm)
    endpoint = await pool.bus.call(contract.CONSOLE, ConsoleRequest(vm=vm.uuid, protocol="vt100"), host=HOST)
    client = await ConsoleClient.connect(endpoint.path)
    await client.until(b"login: ", 5)
    await client.close()


async def test_vms_outlive_the_service(pool: Pool) -> None:
    first = await pool.start_service()
    running, paused = full(), specs.vm()
    states = [await start(pool, running), await start(pool, paused, paused=True)]
    await pool.close_service(first)
    assert pool.neighbours[HOST].open
    pool.events.clear()
    await pool.start_service()
    for state in states:
        event = await pool.state(state.uuid, state.power_state)
        assert event.state == msgspec.structs.replace(state, seq=event.state.seq)
        assert event.state.seq > state.seq
    assert (await start(pool, running)).domid == states[0].domid
    assert (await start(pool, specs.vm())).domid > states[1].domid
    assert (await stop(pool, running)).power_state is PowerState.HALTED
    assert holds_nothing(pool.neighbours[HOST])


async def test_vms_of_a_machine_that_was_restarted_are_halted(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await pool.start_service()
    vm = full()
    await start(pool, vm)
    await pool.close_service(first)
    monkeypatch.setattr("services.vm.host.boot_id", lambda: "another boot")
    await pool.start_service()
    await pool.state(vm.uuid, PowerState.HALTED)
    await pool.neighbours[HOST].all_closed()


async def test_one_process_serves_many_hosts_apart(pool: Pool) -> None:
    hosts = [f"22222222-0000-4000-8000-{number:012d}" for number in range(64)]
    await pool.start_service(hosts)
    vms = {host: specs.vm() for host in hosts}
    await asyncio.gather(*(start(pool, vm, host=host) for host, vm in vms.items()))
    for host, vm in vms.items():
        listed = await pool.bus.call(contract.LIST, Empty(), host=host)
        assert [state.uuid for state in listed.vms] == [vm.uuid]


async def test_a_missing_qemu_is_told_and_the_service_stays_up(pool: Pool, guest_dir: Path) -> None:
    await pool.start_service(backend="qemu", qemu_binary="qemu-that-is-not-there", guest_dir=str(guest_dir))
    found = await pool.bus.call(contract.CAPABILITIES, Empty(), host=HOST)
    assert "qemu-that-is-not-there is not installed" in found.version
    assert (found.accel, found.capabilities) == ("", [])
    vm = full()
    error = await expect("FAILED_TO_START_EMULATOR", start(pool, vm))
    assert "is not installed" in error.params[2]
    assert holds_nothing(pool.neighbours[HOST])
    ping = service_contract.ping("vm", Scope.HOST)
    await pool.bus.call(ping, Empty(), host=HOST)


async def test_a_full_disk_is_an_error_of_the_start_and_leaves_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.start_service()
    vm = full()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("services.vm.records.Records.put", no_space)
        error = await expect("INTERNAL_ERROR", start(pool, vm))
    assert "No space left" in error.params[0]
    assert holds_nothing(pool.neighbours[HOST])
    assert (await start(pool, vm)).power_state is PowerState.RUNNING


async def test_metrics_count_vms_and_operations(pool: Pool) -> None:
    await pool.start_service()
    vm = specs.vm()
    await start(pool, vm)
    method = service_contract.metrics("vm", Scope.HOST)
    text = (await pool.bus.call(method, Empty(), host=HOST)).text
    assert 'xapi_vm_vms{power_state="Running"} 1.0' in text
    assert 'xapi_vm_operations_total{operation="start",result="done"} 1.0' in text
    await stop(pool, vm)
    text = (await pool.bus.call(method, Empty(), host=HOST)).text
    assert 'xapi_vm_vms{power_state="Running"} 0.0' in text
