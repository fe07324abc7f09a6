"""Appliances, snapshot schedules, suspend images, firmware, addresses."""

from __future__ import annotations

import pytest

from services.api.decisions import appliance_operations, boot, snapshot_schedule, suspend_images
from services.api.decisions.addresses import is_address, is_cidr
from shared.errors import ApiError
from tests.api.decisions.sample import Sample


def appliance(*states: str) -> Sample:
    pool = Sample()
    pool.add("VM_appliance", "app")
    for number, state in enumerate(states):
        pool.add("VM", f"vm{number}", power_state=state, appliance="app", order=number // 2)
    return pool


@pytest.mark.parametrize(
    ("states", "allowed"),
    [
        ((), []),
        (("Halted",), ["start"]),
        (("Running",), ["clean_shutdown", "hard_shutdown", "shutdown"]),
        (("Paused",), ["hard_shutdown", "shutdown"]),
        (("Suspended",), ["hard_shutdown", "shutdown"]),
        (("Halted", "Running"), ["clean_shutdown", "hard_shutdown", "shutdown", "start"]),
    ],
)
def test_an_appliance_allows_what_some_of_its_vms_can_do(states: tuple[str, ...], allowed: list[str]) -> None:
    assert appliance_operations.allowed_operations(appliance(*states).rows, "app") == allowed


def test_one_operation_at_a_time() -> None:
    pool = appliance("Halted")
    pool.set("VM_appliance", "app", current_operations={"t": "start"})
    refusal = appliance_operations.check(pool.rows, "app", "start")
    assert refusal is not None
    assert refusal.description == ["OTHER_OPERATION_IN_PROGRESS", "VM_appliance", "app", "start", "t"]


def test_vms_start_in_their_order_and_stop_in_the_opposite_one() -> None:
    halted = appliance("Halted", "Halted", "Halted", "Running")
    starting = appliance_operations.groups(halted.rows, "app", "start")
    assert [set(group) for group in starting] == [{"vm0", "vm1"}, {"vm2"}]
    running = appliance("Running", "Halted", "Running", "Running")
    stopping = appliance_operations.groups(running.rows, "app", "shutdown")
    assert [set(group) for group in stopping] == [{"vm2", "vm3"}, {"vm0"}]


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        ({"min": "30"}, None),
        ({"hour": "23", "min": "0", "days": "Monday,friday"}, None),
        ({"min": "31"}, ["INVALID_VALUE", "schedule:min", "31"]),
        ({"hour": "24"}, ["INVALID_VALUE", "schedule:hour", "24"]),
        ({"days": "someday"}, ["INVALID_VALUE", "schedule:days", "someday"]),
        ({"frob": "x"}, ["INVALID_VALUE", "schedule:frob", "x"]),
    ],
)
def test_schedules(schedule: dict[str, str], wrong: list[str] | None) -> None:
    refusal = snapshot_schedule.check_schedule(schedule)
    assert (refusal.description if refusal is not None else None) == wrong


@pytest.mark.parametrize("count", [0, 11])
def test_between_one_and_ten_snapshots_are_kept(count: int) -> None:
    assert snapshot_schedule.check_retained(5) is None
    refusal = snapshot_schedule.check_retained(count)
    assert refusal is not None
    assert refusal.description == ["INVALID_VALUE", "retained_snapshots", str(count)]


def test_memory_of_a_suspended_vm_goes_to_the_first_sr_that_its_host_has_attached() -> None:
    pool = Sample()
    pool.pool(suspend_image_SR="of-the-pool")
    pool.host("host")
    pool.vm(resident_on="host", suspend_SR="own")
    with pytest.raises(ApiError) as refusal:
        suspend_images.sr_for(pool.rows, "vm")
    assert refusal.value.description == ["VM_NO_SUSPEND_SR", "vm"]
    pool.add("PBD", "pbd", host="host", SR="of-the-pool", currently_attached=True)
    assert suspend_images.sr_for(pool.rows, "vm") == "of-the-pool"
    pool.add("PBD", "pbd2", host="host", SR="own", currently_attached=True)
    assert suspend_images.sr_for(pool.rows, "vm") == "own"


def test_only_firmware_that_there_is_boots() -> None:
    vm = {"domain_type": "hvm", "HVM_boot_params": {"firmware": "frob"}, "platform": {}}
    refusal = boot.check(vm)
    assert refusal is not None
    assert refusal.description == ["INVALID_VALUE", "HVM-boot-params['firmware']", "frob"]
    assert boot.check({**vm, "domain_type": "pv"}) is None
    uefi = {**vm, "HVM_boot_params": {"firmware": "uefi"}}
    assert boot.platform(uefi) == {"device-model": "qemu-upstream-uefi"}
    assert boot.platform({**uefi, "platform": {"device-model": "mine"}}) == {"device-model": "mine"}


@pytest.mark.parametrize(("text", "version"), [("10.0.0.5", 4), ("fe80::1", 6)])
def test_addresses(text: str, version: int) -> None:
    assert is_address(text, version)
    assert not is_address(text, 10 - version)
    assert is_cidr(f"{text}/24", version)
    assert not is_cidr(text, version)
    assert not is_cidr(f"{text}/200", version)
    assert not is_cidr(f"{text}/x", version)
