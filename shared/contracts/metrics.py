"""Counters of hosts and VMs."""

from __future__ import annotations

from shared.bus.contract import Empty, Method, Record, Topic


class VmFigures(Record, frozen=True):
    """`cpu`: share of one CPU times the number used, 1.5 is one and a half. Memory in bytes."""

    vm: str
    cpu: float
    memory: int
    memory_target: int


class HostFigures(Record, frozen=True):
    """`cpu`: 0 to 1 over all CPUs. Memory in bytes. `time`: Unix time of the sample."""

    host: str
    time: float
    cpu: float
    cpus: int
    memory_total: int
    memory_free: int
    load1: float
    vms: list[VmFigures]


SAMPLE = Method("metrics", "sample", Empty, HostFigures, "The latest sample.")
FIGURES: Topic[HostFigures] = Topic("metrics.{host}", HostFigures, "A sample, every few seconds.")
