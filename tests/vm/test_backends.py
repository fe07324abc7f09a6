"""What every hypervisor backend does. Runs on the simulator and on QEMU."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.vm.backend import Stopped, StopReason
from shared.contracts.vm import PowerState
from shared.errors import ApiError
from tests.vm import specs
from tests.vm.backends import Bench
from tests.vm.consoles import ConsoleClient

LOGIN = b"tiny-guest login: "


async def test_a_guest_comes_up_to_its_login_prompt_and_powers_off_when_asked(bench: Bench) -> None:
    domain = await bench.start(bench.kind.spec())
    console = await ConsoleClient.connect(await bench.backend.console(domain.vm.uuid, "vt100"))
    await console.until(LOGIN)
    await bench.backend.request_shutdown(domain.vm.uuid)
    assert await bench.next_stop() == Stopped(domain.vm.uuid, domain.domid, StopReason.SHUTDOWN)
    await console.close()


@pytest.mark.parametrize("reason", [StopReason.SHUTDOWN, StopReason.REBOOT, StopReason.CRASH])
async def test_what_a_guest_does_by_itself_is_told_once(bench: Bench, reason: StopReason) -> None:
    domain = await bench.start(bench.kind.by_itself(reason))
    assert await bench.next_stop() == Stopped(domain.vm.uuid, domain.domid, reason)
    await bench.backend.destroy(domain)
    assert bench.stops.empty()


async def test_a_console_replays_to_every_client_and_is_live_for_all(bench: Bench) -> None:
    domain = await bench.start(bench.kind.spec())
    path = await bench.backend.console(domain.vm.uuid, "vt100")
    first = await ConsoleClient.connect(path)
    await first.until(LOGIN)
    assert await bench.backend.console(domain.vm.uuid, "vt100") == path
    second = await ConsoleClient.connect(path)
    await second.until(LOGIN)
    first.type(b"nobody")
    await first.until(LOGIN + b"nobody")
    await second.until(LOGIN + b"nobody")
    await first.close()
    await second.close()


async def test_a_console_has_the_former_output_after_a_restart_of_the_service(bench: Bench) -> None:
    domain = await bench.start(bench.kind.spec())
    before = await ConsoleClient.connect(await bench.backend.console(domain.vm.uuid, "vt100"))
    await before.until(LOGIN)
    await bench.reopen(PowerState.RUNNING)
    after = await ConsoleClient.connect(await bench.backend.console(domain.vm.uuid, "vt100"))
    await after.until(LOGIN, 5)
    after.type(b"nobody")
    await after.until(LOGIN + b"nobody")
    await before.close()
    await after.close()


async def test_the_paths_of_consoles_fit_a_unix_socket(bench: Bench) -> None:
    domain = await bench.start(bench.kind.spec())
    for console in bench.backend.consoles(domain.vm):
        assert len(await bench.backend.console(domain.vm.uuid, console.protocol)) <= 107


async def test_a_console_a_vm_does_not_have_is_refused(bench: Bench) -> None:
    domain = await bench.start(bench.kind.spec())
    with pytest.raises(ApiError, match="INVALID_VALUE"):
        await bench.backend.console(domain.vm.uuid, "rdp")


async def test_a_domain_is_found_again_in_the_state_it_is_in(bench: Bench) -> None:
    domain = await bench.start(bench.kind.spec())
    assert await bench.reopen(PowerState.RUNNING) == {domain.vm.uuid: PowerState.RUNNING}
    await bench.backend.pause(domain.vm.uuid)
    assert await bench.reopen(PowerState.PAUSED) == {domain.vm.uuid: PowerState.PAUSED}
    await bench.backend.unpause(domain.vm.uuid)
    assert await bench.reopen(PowerState.RUNNING) == {domain.vm.uuid: PowerState.RUNNING}
    assert bench.stops.empty()


async def test_a_domain_that_no_record_knows_is_ended(bench: Bench) -> None:
    known, unknown = await bench.create(bench.kind.spec()), await bench.create(bench.kind.spec())
    found = await bench.reopen(PowerState.PAUSED, but=[unknown])
    assert set(found) == {known.vm.uuid}
    with pytest.raises(ApiError):
        await bench.backend.unpause(unknown.vm.uuid)


async def test_pausing_and_unpausing_twice_is_the_same_as_once(bench: Bench) -> None:
    domain = await bench.start(bench.kind.spec())
    for change in (bench.backend.pause, bench.backend.pause, bench.backend.unpause, bench.backend.unpause):
        await change(domain.vm.uuid)
    assert bench.stops.empty()


async def test_destroying_is_harmless_when_there_is_nothing(bench: Bench) -> None:
    domain = await bench.create(bench.kind.spec())
    await bench.backend.destroy(domain)
    await bench.backend.destroy(domain)
    assert bench.stops.empty()


async def test_a_vm_can_have_a_new_domain_after_the_old_one(bench: Bench) -> None:
    vm = bench.kind.spec()
    first = await bench.start(vm)
    await bench.backend.destroy(first)
    second = await bench.start(vm)
    await bench.backend.destroy(first)  # again: it is not the second's business
    await bench.backend.pause(second.vm.uuid)


async def test_a_vm_that_cannot_be_built_leaves_nothing(bench: Bench, short_folder: Path) -> None:
    vm = bench.kind.broken()
    with pytest.raises(ApiError) as caught:
        await bench.start(vm)
    assert caught.value.code == "FAILED_TO_START_EMULATOR"
    assert caught.value.params[0] == vm.ref
    assert caught.value.params[2]


async def test_a_vm_too_large_for_the_host_is_refused_with_the_figures(bench: Bench) -> None:
    with pytest.raises(ApiError) as caught:
        await bench.create(bench.kind.spec(memory_dynamic_max=2**50, memory_static_max=2**50))
    assert caught.value.code == "HOST_NOT_ENOUGH_FREE_MEMORY"
    needed, available = map(int, caught.value.params)
    assert needed > available > 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"vcpus_max": 0}, "INVALID_VALUE"),
        ({"vcpus_at_startup": 2}, "INVALID_VALUE"),
        ({"memory_dynamic_max": 0}, "INVALID_VALUE"),
        ({"domain_type": "unspecified"}, "INVALID_VALUE"),
        ({"vbds": [specs.disk("x")]}, "INVALID_DEVICE"),
        ({"vbds": [specs.disk("0"), specs.disk("0")]}, "DEVICE_ALREADY_EXISTS"),
    ],
)
async def test_a_wrong_configuration_is_refused_before_anything_is_done(
    bench: Bench, fields: dict[str, object], code: str
) -> None:
    with pytest.raises(ApiError) as caught:
        bench.backend.check(bench.kind.spec(**fields))
    assert caught.value.code == code


async def test_several_domains_live_side_by_side(bench: Bench) -> None:
    domains = await asyncio.gather(*(bench.start(bench.kind.spec()) for _ in range(3)))
    await bench.backend.destroy(domains[1])
    for domain in (domains[0], domains[2]):
        await bench.backend.pause(domain.vm.uuid)


async def test_capabilities_say_what_the_host_is(bench: Bench) -> None:
    found = await bench.backend.capabilities()
    assert found.backend == bench.backend.name
    assert found.accel in ("kvm", "tcg", "simulated")
    assert any("hvm" in capability for capability in found.capabilities)
    assert found.cpu_count > 0
    assert found.memory_total > 2**20
