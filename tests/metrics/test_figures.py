from __future__ import annotations

import os
import time

import pytest

from services.metrics import usage
from services.metrics.figures import of_machine, of_simulation
from services.metrics.usage import Machine, Process
from shared.contracts.vm import PowerState, VmState

GIB = 1 << 30


def vm(uuid: str, state: PowerState = PowerState.RUNNING, pid: int = 0, memory: int = GIB, vcpus: int = 1) -> VmState:
    return VmState(uuid=uuid, ref="", power_state=state, pid=pid, memory_actual=memory, vcpus=vcpus)


def machine(at: float, busy: float, **processes: float) -> Machine:
    return Machine(
        time=at,
        busy=busy,
        idle=4 * at - busy,
        cpus=4,
        memory_total=16 * GIB,
        memory_free=10 * GIB,
        load1=1.5,
        processes={int(pid[1:]): Process(cpu_seconds=used, memory=GIB // 2) for pid, used in processes.items()},
    )


def test_cpu_is_what_was_used_between_two_readings() -> None:
    figures = of_machine("h", 0.0, machine(100, 50, p7=10), machine(110, 60, p7=25), [vm("a", pid=7)])
    assert figures.cpu == pytest.approx(0.25)
    assert figures.vms[0].cpu == pytest.approx(1.5)
    assert (figures.cpus, figures.memory_free, figures.load1) == (4, 10 * GIB, 1.5)


def test_the_first_reading_has_no_shares() -> None:
    figures = of_machine("h", 0.0, None, machine(100, 50, p7=10), [vm("a", pid=7)])
    assert figures.cpu == 0
    assert figures.vms[0].cpu == 0


def test_a_process_that_is_new_or_gone_counts_nothing() -> None:
    vms = [vm("new", pid=8), vm("gone", pid=9)]
    figures = of_machine("h", 0.0, machine(100, 50, p9=10), machine(110, 60, p8=25), vms)
    assert [figure.cpu for figure in figures.vms] == [0, 0]


def test_a_vm_s_memory_is_its_own_or_else_its_process_s() -> None:
    vms = [vm("a", pid=7, memory=3 * GIB), vm("b", pid=8, memory=0)]
    figures = of_machine("h", 0.0, None, machine(100, 50, p7=1, p8=1), vms)
    assert [figure.memory for figure in figures.vms] == [3 * GIB, GIB // 2]


def test_only_vms_that_use_the_host_are_counted() -> None:
    vms = [vm("b", PowerState.PAUSED), vm("a"), vm("c", PowerState.HALTED), vm("d", PowerState.SUSPENDED)]
    assert [figure.vm for figure in of_simulation("h", 0.0, 8, 64 * GIB, vms).vms] == ["a", "b"]


def test_simulated_figures_depend_only_on_who_and_when() -> None:
    vms = [vm(f"vm{n}", vcpus=2) for n in range(5)]
    figures = of_simulation("h", 1000.0, 8, 64 * GIB, vms)
    assert figures == of_simulation("h", 1000.0, 8, 64 * GIB, reversed(vms))
    assert figures != of_simulation("h", 1200.0, 8, 64 * GIB, vms)
    assert all(0 < figure.cpu < 2 for figure in figures.vms)
    assert 0 < figures.cpu <= 1
    assert figures.memory_free == 59 * GIB


def test_an_overcommitted_simulated_host_has_no_free_memory() -> None:
    assert of_simulation("h", 0.0, 1, GIB, [vm("a", memory=4 * GIB)]).memory_free == 0


def test_a_reading_of_this_machine_makes_sense() -> None:
    first = usage.read([os.getpid(), 2**22 + 1])
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass  # use some CPU
    second = usage.read([os.getpid()])
    assert list(first.processes) == [os.getpid()]
    assert second.processes[os.getpid()].cpu_seconds > first.processes[os.getpid()].cpu_seconds
    assert second.processes[os.getpid()].memory > 1 << 20
    assert 0 < second.memory_free <= second.memory_total
    assert second.busy >= first.busy
    assert second.time > first.time
