"""The metrics service: a sample of each host and its VMs every few seconds, on the bus and for Prometheus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from services.metrics import figures, usage
from services.metrics.inventory import Inventory
from services.metrics.options import MetricsOptions
from shared.bus.contract import Empty
from shared.bus.interface import BusError
from shared.config import HostConfig
from shared.contracts.metrics import FIGURES, SAMPLE, HostFigures
from shared.service import Service

log = logging.getLogger("metrics")

_SIMULATED_CPUS = 16
_SIMULATED_MEMORY = 128 << 30
"""Until the vm service has said what the simulated host has."""


class Gauges:
    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self._cpu = gauge("host_cpu", "Share of the host's CPU time in use, 0 to 1", "host")
        self._load = gauge("host_load1", "Load average of one minute", "host")
        self._total = gauge("host_memory_total_bytes", "Memory of the host", "host")
        self._free = gauge("host_memory_free_bytes", "Memory that is free or can be freed", "host")
        self._vms = gauge("host_vms", "VMs that run or are paused", "host")
        self._vm_cpu = gauge("vm_cpu", "CPUs in use by a VM", "host", "vm")
        self._vm_memory = gauge("vm_memory_bytes", "Memory of a VM", "host", "vm")
        self._known: dict[str, set[str]] = {}

    def show(self, sample: HostFigures) -> None:
        self._cpu.labels(sample.host).set(sample.cpu)
        self._load.labels(sample.host).set(sample.load1)
        self._total.labels(sample.host).set(sample.memory_total)
        self._free.labels(sample.host).set(sample.memory_free)
        self._vms.labels(sample.host).set(len(sample.vms))
        for vm in sample.vms:
            self._vm_cpu.labels(sample.host, vm.vm).set(vm.cpu)
            self._vm_memory.labels(sample.host, vm.vm).set(vm.memory)
        current = {vm.vm for vm in sample.vms}
        for gone in self._known.get(sample.host, set()) - current:
            self._vm_cpu.remove(sample.host, gone)
            self._vm_memory.remove(sample.host, gone)
        self._known[sample.host] = current


class Sampler:
    """One host's samples. `latest` is what SAMPLE answers."""

    def __init__(self, service: Service, host: HostConfig, gauges: Gauges) -> None:
        self.host = host
        self.inventory = Inventory(service.bus, host.uuid)
        self._bus = service.bus
        self._gauges = gauges
        self._last: usage.Machine | None = None
        self._latest: HostFigures | None = None

    async def take(self) -> HostFigures:
        vms = self.inventory.vms
        now = time.time()
        if self.host.simulated:
            has = self.inventory.capabilities
            cpus, memory = (has.cpu_count, has.memory_total) if has else (_SIMULATED_CPUS, _SIMULATED_MEMORY)
            sample = figures.of_simulation(self.host.uuid, now, cpus, memory, vms)
        else:
            pids = [vm.pid for vm in vms if vm.pid]
            current = await asyncio.get_running_loop().run_in_executor(None, partial(usage.read, pids))
            sample = figures.of_machine(self.host.uuid, now, self._last, current, vms)
            self._last = current
        self._latest = sample
        self._gauges.show(sample)
        return sample

    async def publish(self) -> None:
        try:
            await self._bus.publish(FIGURES, await self.take(), host=self.host.uuid)
        except BusError as error:
            log.debug("a sample is lost: %s", error)  # the next one comes in seconds

    async def sample(self, _: Empty) -> HostFigures:
        return self._latest or await self.take()


async def setup(service: Service) -> None:
    options = service.options(MetricsOptions)
    gauges = Gauges(service.registry)
    samplers = [Sampler(service, host, gauges) for host in service.hosts]
    again = asyncio.Event()
    for sampler in samplers:
        await sampler.inventory.follow()
        await service.serve(SAMPLE, sampler.sample, host=sampler.host.uuid)

    async def reconnected() -> None:
        again.set()

    service.bus.on_reconnect(reconnected)
    service.spawn(_refresh(samplers, options.relist, again), "lists of VMs")
    service.spawn(_publish(samplers, options.interval), "samples")


async def _publish(samplers: Sequence[Sampler], interval: float) -> None:
    """One timer for all hosts, which take turns, so that a process with many does not work in bursts."""
    begin = asyncio.get_running_loop().time()
    turn = 0
    while True:
        await samplers[turn % len(samplers)].publish()
        turn += 1
        due = begin + turn * interval / len(samplers)
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


async def _refresh(samplers: Sequence[Sampler], interval: float, again: asyncio.Event) -> None:
    """At the start until the vm service answers, then now and then, and after the bus was away: events may be lost."""
    delay = 0.2
    while True:
        again.clear()
        await asyncio.gather(*(sampler.inventory.refresh() for sampler in samplers))
        known = all(sampler.inventory.capabilities is not None for sampler in samplers)
        delay = interval if known else min(delay * 2, interval)
        try:
            async with asyncio.timeout(delay):
                await again.wait()
        except TimeoutError:
            continue
