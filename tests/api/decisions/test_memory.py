from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.decisions import memory
from services.api.decisions.memory import MemoryIndex, Use
from tests.api.decisions.sample import GIB, MIB, Sample


@pytest.mark.parametrize(
    ("kind", "vcpus", "platform", "expected"),
    [
        ("hvm", 1, {}, 128 + 4 + 2),
        ("hvm", 4, {"videoram": "16"}, 128 + 16 + 8),
        ("pvh", 2, {"videoram": "16"}, 128 + 4),
        ("pv", 1, {}, 128 + 2),
        ("hvm", 1, {"videoram": "much"}, 128 + 4 + 2),
    ],
)
def test_the_overhead_is_that_of_a_qemu_process(kind: str, vcpus: int, platform: dict[str, str], expected: int) -> None:
    pool = Sample()
    pool.vm(kind=kind, VCPUs_max=vcpus, platform=platform)
    assert memory.overhead(pool.row("VM", "vm")) == expected * MIB


@pytest.mark.parametrize(
    ("kind", "vcpus", "static_max", "multiplier", "expected"),
    [
        # internal 1 + external 1 + shadow ceil((256 + 512) pages) = 3 + per-CPU ceil(38 pages) = 1
        ("hvm", 1, 256 * MIB, 1.0, 6),
        ("hvm", 1, 256 * MIB, 2.0, 9),
        ("pvh", 2, GIB, 1.0, 2 + 10 + 1),
        ("pv", 1, GIB, 1.0, 0 + 1 + 1),
        ("pv_in_pvh", 1, GIB, 1.0, 2 + 9 + 1 + 23 + 1024 // 90),
    ],
)
def test_the_originals_formula_is_at_hand(
    kind: str, vcpus: int, static_max: int, multiplier: float, expected: int
) -> None:
    pool = Sample()
    pool.vm(kind=kind, VCPUs_max=vcpus, memory_static_max=static_max, HVM_shadow_multiplier=multiplier)
    assert memory.xen_overhead(pool.row("VM", "vm")) == expected * MIB


def limits(pool: Sample, low: int, dynamic_min: int, dynamic_max: int, high: int) -> None:
    pool.vm(
        memory_static_min=low, memory_dynamic_min=dynamic_min, memory_dynamic_max=dynamic_max, memory_static_max=high
    )


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((1, 2, 3, 4), None),
        ((0, 0, 0, 0), None),
        ((2, 1, 3, 4), "MEMORY_CONSTRAINT_VIOLATION_ORDER"),
        ((1, 3, 2, 4), "MEMORY_CONSTRAINT_VIOLATION_ORDER"),
        ((1, 2, 4, 3), "MEMORY_CONSTRAINT_VIOLATION_ORDER"),
        ((-1, 2, 3, 4), "MEMORY_CONSTRAINT_VIOLATION_ORDER"),
    ],
)
def test_memory_limits_are_in_order(values: tuple[int, int, int, int], error: str | None) -> None:
    pool = Sample()
    limits(pool, *values)
    found = memory.check_constraints(pool.row("VM", "vm"))
    assert (found.code if found else None) == error


def test_pinned_memory_does_not_vary() -> None:
    pool = Sample()
    limits(pool, 1, 2, 2, 3)
    error = memory.check_constraints(pool.row("VM", "vm"), pinned="nested virtualisation")
    assert error is not None
    assert error.description == ["MEMORY_CONSTRAINT_VIOLATION_MAXPIN", "nested virtualisation"]


def test_limits_are_clamped_at_start_if_they_can_be() -> None:
    pool = Sample()
    limits(pool, 10, 5, 50, 40)
    vm = pool.row("VM", "vm")
    assert memory.check_coercible(vm) is None
    assert memory.coerced(vm) == {"memory_dynamic_min": 10, "memory_dynamic_max": 40, "memory_target": 40}
    pool.set("VM", "vm", memory_static_max=9)
    error = memory.check_coercible(pool.row("VM", "vm"))
    assert error is not None
    assert error.description == ["MEMORY_CONSTRAINT_VIOLATION"]


def test_residents_and_reservations_take_memory_from_a_host() -> None:
    pool = Sample()
    pool.host("host", memory=4 * GIB, memory_overhead=GIB)
    assert memory.free_memory(pool.rows, "host") == 3 * GIB
    pool.vm("a", state="Running", resident_on="host", memory_dynamic_min=GIB, memory_overhead=100 * MIB)
    pool.vm("b", scheduled_to_be_resident_on="host", memory_dynamic_min=GIB, memory_overhead=100 * MIB)
    expected = 3 * GIB - 2 * (GIB + 100 * MIB)
    assert memory.free_memory(pool.rows, "host") == expected
    assert memory.free_memory(pool.rows, "host", MemoryIndex.of(pool.rows)) == expected
    assert memory.free_memory(pool.rows, "host", besides="b") == expected + GIB + 100 * MIB
    assert memory.free_memory(pool.rows, "host", besides="a") == expected, "a resident is no guest of its own"


def test_an_overfull_host_has_nothing_free() -> None:
    pool = Sample()
    pool.host("host", memory=GIB)
    pool.vm("a", resident_on="host", memory_dynamic_min=2 * GIB)
    assert memory.free_memory(pool.rows, "host") == 0


HOSTS = ("h1", "h2", "h3", "OpaqueRef:NULL", "")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "d"]),
            st.none() | st.tuples(st.sampled_from(HOSTS), st.sampled_from(HOSTS), st.integers(0, 5)),
        ),
        max_size=30,
    )
)
def test_an_index_that_followed_every_change_equals_a_fresh_one(
    steps: list[tuple[str, tuple[str, str, int] | None]],
) -> None:
    index = MemoryIndex()
    final: dict[str, dict[str, Any]] = {}
    for ref, state in steps:
        if state is None:
            row = None
            final.pop(ref, None)
        else:
            resident, scheduled, size = state
            row = {
                "resident_on": resident,
                "scheduled_to_be_resident_on": scheduled,
                "memory_overhead": 1,
                "memory_dynamic_min": size,
                "memory_dynamic_max": size + 1,
                "memory_static_max": size + 2,
            }
            final[ref] = row
        index.update(ref, row)
    fresh = MemoryIndex()
    fresh.update_all(final)
    for host in ("h1", "h2", "h3"):
        assert index.use(host) == fresh.use(host)
        for vm in "abcd":
            assert index.use(host, besides=vm) == fresh.use(host, besides=vm)
    if not final:
        assert index.use("h1") == Use()
