from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from services.api.decisions import placement
from services.api.decisions.memory import MemoryIndex, overhead
from shared.errors import ApiError
from tests.api.decisions.sample import GIB, MIB, Sample

NULL = "OpaqueRef:NULL"


def described(error: ApiError | None) -> list[str] | None:
    return None if error is None else error.description


def sample(hosts: int = 1, **vm: Any) -> Sample:
    pool = Sample()
    pool.pool(master="h0")
    for number in range(hosts):
        pool.host(f"h{number}")
    pool.vm(**vm)
    return pool


def can_boot(pool: Sample, host: str = "h0") -> list[str] | None:
    return described(placement.assert_can_boot_here(pool.rows, "vm", host))


def test_a_plain_vm_boots_on_a_plain_host() -> None:
    assert can_boot(sample()) is None


@pytest.mark.parametrize(
    ("vm", "expected"),
    [
        ({"VCPUs_max": 0, "VCPUs_at_startup": 0}, ["INVALID_VALUE", "VCPUs-max", "0"]),
        ({"VCPUs_at_startup": 0}, ["INVALID_VALUE", "VCPUs-at-startup", "0"]),
        (
            {"VCPUs_at_startup": 5, "VCPUs_max": 2},
            ["VALUE_NOT_SUPPORTED", "VCPUs-at-startup", "5", "value greater than VCPUs-max"],
        ),
        ({"memory_static_max": 1}, ["MEMORY_CONSTRAINT_VIOLATION"]),
        ({"HVM_shadow_multiplier": 0.5}, ["INVALID_VALUE", "HVM_shadow_multiplier", "0.5"]),
        (
            {"actions_after_crash": "coredump_and_destroy"},
            [
                "VALUE_NOT_SUPPORTED",
                "VM.actions_after_crash",
                "coredump_and_destroy",
                "cannot invoke a coredump of an HVM, PVH or PV-in-PVH domain",
            ],
        ),
        ({"actions_after_crash": "coredump_and_destroy", "kind": "pv"}, None),
        (
            {"hardware_platform_version": 9},
            ["VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION", "h0", "[0; 1; 2]", "vm", "9"],
        ),
        ({"VCPUs_max": 5}, ["HOST_NOT_ENOUGH_PCPUS", "5", "4"]),
        ({"VCPUs_max": 5, "platform": {"vcpu-unrestricted": "true"}}, None),
        ({"memory_dynamic_min": 1}, None),
    ],
)
def test_what_a_vm_asks_for_is_checked(vm: dict[str, Any], expected: list[str] | None) -> None:
    assert can_boot(sample(**vm)) == expected


def test_rename_restart_is_not_supported() -> None:
    error = can_boot(sample(actions_after_crash="rename_restart"))
    assert error is not None
    assert error[:3] == ["VALUE_NOT_SUPPORTED", "VM.actions_after_crash", "rename_restart"]


@pytest.mark.parametrize(
    ("cls", "ref", "change", "expected"),
    [
        ("host_metrics", "h0-metrics", {"live": False}, ["HOST_NOT_LIVE"]),
        ("host", "h0", {"enabled": False}, ["HOST_DISABLED", "h0"]),
        ("host", "h0", {"capabilities": ["xen-3.0-x86_64"]}, ["VM_HVM_REQUIRED", "vm"]),
    ],
)
def test_what_a_host_is_not_is_named(cls: str, ref: str, change: dict[str, Any], expected: list[str]) -> None:
    pool = sample()
    pool.set(cls, ref, **change)
    assert can_boot(pool) == expected


def test_who_knows_better_may_say_that_a_host_is_dead() -> None:
    pool = sample()
    error = placement.assert_can_boot_here(pool.rows, "vm", "h0", live=lambda host: False)
    assert described(error) == ["HOST_NOT_LIVE"]


def test_the_first_reason_is_the_one_that_is_given() -> None:
    pool = sample(VCPUs_max=0)
    pool.set("host_metrics", "h0-metrics", live=False)
    pool.set("host", "h0", enabled=False)
    assert can_boot(pool) == ["INVALID_VALUE", "VCPUs-max", "0"]
    pool.set("VM", "vm", VCPUs_max=1)
    assert can_boot(pool) == ["HOST_NOT_LIVE"]


def test_needed_and_free_memory_are_given_in_bytes() -> None:
    pool = sample()
    pool.set("host_metrics", "h0-metrics", memory_total=300 * MIB)
    needed = 256 * MIB + overhead(pool.row("VM", "vm"))
    assert can_boot(pool) == ["HOST_NOT_ENOUGH_FREE_MEMORY", str(needed), str(300 * MIB)]
    assert placement.assert_can_boot_here(pool.rows, "vm", "h0", check_memory=False) is None


def test_every_disk_and_disc_needs_its_sr_on_the_host() -> None:
    pool = sample(hosts=2)
    pool.sr("sr", hosts=("h0", "h1"))
    pool.sr("isos", hosts=("h1",))
    pool.vdi("vdi")
    pool.vdi("iso", sr="isos")
    pool.vbd()
    pool.cd()
    assert can_boot(pool) is None
    pool.set("VBD", "cd", VDI="iso", empty=False)
    assert can_boot(pool) == ["VM_REQUIRES_SR", "vm", "isos"]
    assert can_boot(pool, "h1") is None
    pool.set("PBD", "sr-on-h1", currently_attached=False)
    assert can_boot(pool, "h1") == ["VM_REQUIRES_SR", "vm", "sr"]
    assert placement.possible_hosts(pool.rows, "vm") == []


def test_a_suspended_vm_needs_the_sr_of_its_memory() -> None:
    pool = sample()
    pool.sr("sr")
    pool.vdi("image")
    pool.set("VM", "vm", power_state="Suspended", suspend_VDI="image")
    assert can_boot(pool) == ["VM_REQUIRES_SR", "vm", "sr"]


def on_network(**network: Any) -> Sample:
    pool = sample(hosts=2)
    pool.add("network", "network", **network)
    pool.vif()
    return pool


def test_a_network_with_interfaces_is_where_they_are() -> None:
    pool = on_network()
    pool.add("PIF", "pif", network="network", host="h0", currently_attached=False)
    assert can_boot(pool, "h0") is None
    assert can_boot(pool, "h1") == ["VM_REQUIRES_NETWORK", "vm", "network"]
    pool.set("PIF", "pif", bond_slave_of="bond")
    assert can_boot(pool, "h0") == ["HOST_CANNOT_ATTACH_NETWORK", "h0", "network"]


def test_the_first_vm_pins_an_internal_network() -> None:
    pool = on_network()
    assert placement.possible_hosts(pool.rows, "vm") == ["h0", "h1"]
    pool.vm("first", state="Running", resident_on="h1")
    pool.vif("other", vm="first")
    assert can_boot(pool, "h0") == ["VM_REQUIRES_NETWORK", "vm", "network"]
    assert can_boot(pool, "h1") is None
    pool.set("VM", "first", power_state="Halted", resident_on=NULL)
    assert can_boot(pool, "h0") is None


@pytest.mark.parametrize("network", [{"managed": False}, {"other_config": {"assume_network_is_shared": "true"}}])
def test_networks_that_reach_everywhere_pin_nobody(network: dict[str, Any]) -> None:
    pool = on_network(**network)
    pool.vm("first", state="Running", resident_on="h1")
    pool.vif("other", vm="first")
    assert can_boot(pool, "h0") is None


def test_start_on_asks_whether_the_host_is_being_evacuated() -> None:
    pool = sample()
    assert placement.check_start_on(pool.rows, "vm", "h0") is None
    pool.set("host", "h0", current_operations={"t": "evacuate"})
    assert described(placement.check_start_on(pool.rows, "vm", "h0")) == ["HOST_EVACUATE_IN_PROGRESS", "h0"]


# ---- choosing


def choose(pool: Sample, seed: int = 1) -> str:
    return placement.choose_host(pool.rows, "vm", random.Random(seed))


def choices(pool: Sample, times: int = 200) -> Counter[str]:
    rng = random.Random(7)
    return Counter(placement.choose_host(pool.rows, "vm", rng) for _ in range(times))


def test_the_same_random_numbers_choose_the_same_host() -> None:
    pool = sample(hosts=5)
    assert {choose(pool, 3) for _ in range(5)} == {choose(pool, 3)}


def test_the_host_of_affinity_is_taken_if_it_is_possible_at_all() -> None:
    pool = sample(hosts=3, affinity="h2")
    pool.set("host_metrics", "h2-metrics", memory_total=GIB)
    assert choices(pool) == {"h2": 200}
    pool.set("host", "h2", enabled=False)
    assert "h2" not in choices(pool)


def test_an_affinity_to_nobody_does_not_matter() -> None:
    assert choose(sample(affinity="OpaqueRef:gone")) == "h0"


def test_hosts_with_more_room_are_chosen_more_often_but_not_always() -> None:
    pool = sample(hosts=2)
    pool.set("host_metrics", "h0-metrics", memory_total=64 * GIB)
    seen = choices(pool)
    assert seen["h0"] > seen["h1"] > 0
    assert 0.6 < seen["h0"] / 200 < 0.8, "one in the square root of two is 0.71"


def test_a_host_where_everything_fits_is_better_than_one_that_must_balloon() -> None:
    pool = sample(hosts=2, memory_static_max=2 * GIB, memory_dynamic_max=2 * GIB)
    pool.set("host_metrics", "h0-metrics", memory_total=GIB)
    assert choices(pool) == {"h1": 200}


def test_the_coordinator_counts_half_when_it_is_to_be_spared() -> None:
    pool = sample(hosts=2)
    pool.set("host_metrics", "h0-metrics", memory_total=10 * GIB)
    assert choices(pool).most_common(1)[0][0] == "h0"
    pool.set("pool", "pool", coordinator_bias=True)
    assert choices(pool).most_common(1)[0][0] == "h1"


def test_a_host_that_is_being_evacuated_is_not_chosen() -> None:
    pool = sample(hosts=2)
    pool.set("host", "h0", current_operations={"t": "evacuate"})
    assert choices(pool) == {"h1": 200}


def test_reservations_count_before_the_vms_run() -> None:
    pool = sample(hosts=2)
    for number in range(20):
        pool.vm(
            f"coming{number}",
            scheduled_to_be_resident_on="h0",
            memory_static_max=GIB,
            memory_dynamic_max=GIB,
            memory_dynamic_min=GIB,
        )
    assert choices(pool) == {"h1": 200}


def test_when_no_host_has_the_memory_one_is_chosen_anyway_so_that_it_says_so() -> None:
    pool = sample(hosts=2, memory_static_max=100 * GIB, memory_dynamic_max=100 * GIB, memory_dynamic_min=100 * GIB)
    host = choose(pool)
    error = placement.assert_can_boot_here(pool.rows, "vm", host)
    assert error is not None
    assert error.code == "HOST_NOT_ENOUGH_FREE_MEMORY"


def nowhere(spoil: Callable[[Sample], None]) -> Sample:
    pool = sample(hosts=2)
    spoil(pool)
    return pool


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pool: [pool.set("host", host, enabled=False) for host in ("h0", "h1")],
        lambda pool: [pool.set("host_metrics", f"{host}-metrics", live=False) for host in ("h0", "h1")],
        lambda pool: pool.set("VM", "vm", VCPUs_max=0),
        lambda pool: pool.set("VM", "vm", VCPUs_max=64),
        lambda pool: (pool.sr("sr"), pool.vdi(), pool.vbd()),
    ],
)
def test_when_no_host_will_do_the_reason_is_not_given(spoil: Callable[[Sample], None]) -> None:
    pool = nowhere(spoil)
    with pytest.raises(ApiError) as caught:
        choose(pool)
    assert caught.value.description == ["NO_HOSTS_AVAILABLE"]


@pytest.mark.parametrize(("hosts", "vms", "limit"), [(3, 1_000, 0.001), (64, 10_000, 0.005)])
def test_choosing_is_quick(hosts: int, vms: int, limit: float) -> None:
    pool = sample(hosts=hosts)
    pool.sr("sr", hosts=tuple(f"h{number}" for number in range(hosts)), shared=True)
    pool.vdi()
    pool.vbd()
    pool.add("network", "network")
    for number in range(hosts):
        pool.set("host_metrics", f"h{number}-metrics", memory_total=256 * GIB)
        pool.add("PIF", f"pif{number}", network="network", host=f"h{number}")
    pool.vif()
    for number in range(vms):
        pool.add("VM", f"vm{number}", power_state="Running", resident_on=f"h{number % hosts}", memory_dynamic_min=GIB)
    index, rng, best = MemoryIndex.of(pool.rows), random.Random(1), 1.0
    for _ in range(30):
        begin = time.perf_counter()
        placement.choose_host(pool.rows, "vm", rng, index)
        best = min(best, time.perf_counter() - begin)
    assert best < limit, f"{best * 1000:.2f} ms"
