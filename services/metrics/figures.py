"""Figures from readings: pure functions. A share of CPU is what happened between two readings."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from services.metrics.usage import Machine
from shared.contracts.metrics import HostFigures, VmFigures
from shared.contracts.vm import PowerState, VmState

_LIVE = (PowerState.RUNNING, PowerState.PAUSED)


def present(vms: Iterable[VmState]) -> list[VmState]:
    """VMs that use the host, by uuid."""
    return sorted((vm for vm in vms if vm.power_state in _LIVE), key=lambda vm: vm.uuid)


def of_machine(host: str, now: float, last: Machine | None, current: Machine, vms: Iterable[VmState]) -> HostFigures:
    """`now`: Unix time. Without a last reading, shares of CPU are 0."""
    elapsed = current.time - last.time if last else 0.0
    figures = []
    for vm in present(vms):
        process = current.processes.get(vm.pid)
        before = last.processes.get(vm.pid) if last else None
        used = process.cpu_seconds - before.cpu_seconds if process and before else 0.0
        memory = vm.memory_actual or (process.memory if process else 0)
        figures.append(
            VmFigures(
                vm=vm.uuid, cpu=max(0.0, used / elapsed) if elapsed > 0 else 0.0, memory=memory, memory_target=memory
            )
        )
    return HostFigures(
        host=host,
        time=now,
        cpu=_share(last, current),
        cpus=current.cpus,
        memory_total=current.memory_total,
        memory_free=current.memory_free,
        load1=current.load1,
        vms=figures,
    )


def of_simulation(host: str, now: float, cpus: int, memory_total: int, vms: Iterable[VmState]) -> HostFigures:
    """Plausible figures that depend on nothing but who and when: each VM's use goes up and down over ten minutes."""
    running = present(vms)
    figures = [
        VmFigures(
            vm=vm.uuid,
            cpu=_wave(vm.uuid, now) * max(1, vm.vcpus) if vm.power_state is PowerState.RUNNING else 0.0,
            memory=vm.memory_actual,
            memory_target=vm.memory_actual,
        )
        for vm in running
    ]
    used = sum(figure.cpu for figure in figures)
    cpu = min(1.0, 0.02 + used / max(1, cpus))
    return HostFigures(
        host=host,
        time=now,
        cpu=cpu,
        cpus=cpus,
        memory_total=memory_total,
        memory_free=max(0, memory_total - sum(figure.memory for figure in figures)),
        load1=cpu * cpus,
        vms=figures,
    )


def _share(last: Machine | None, current: Machine) -> float:
    if last is None:
        return 0.0
    busy, idle = current.busy - last.busy, current.idle - last.idle
    return min(1.0, max(0.0, busy / (busy + idle))) if busy + idle > 0 else 0.0


def _wave(name: str, now: float) -> float:
    """0.05 to 0.45."""
    phase = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
    return 0.25 + 0.2 * math.sin(2 * math.pi * (now / 600 + phase))
