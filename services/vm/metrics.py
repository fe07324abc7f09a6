"""The service's Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.contracts.vm import PowerState


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._vms = Gauge("xapi_vm_vms", "VMs on this process's hosts.", ["power_state"], registry=registry)
        self._operations = Counter(
            "xapi_vm_operations", "Operations that ended.", ["operation", "result"], registry=registry
        )
        self._seconds = Histogram(
            "xapi_vm_operation_seconds",
            "Time an operation took, with the wait for its turn.",
            ["operation"],
            registry=registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
        )
        self._stops = Counter(
            "xapi_vm_guest_stops", "Guests that stopped by themselves.", ["reason"], registry=registry
        )

    def moved(self, before: PowerState, after: PowerState) -> None:
        """A VM changed its state. Halted ones are not counted: the service does not know them."""
        if before is not PowerState.HALTED:
            self._vms.labels(before.value).dec()
        if after is not PowerState.HALTED:
            self._vms.labels(after.value).inc()

    def stopped(self, reason: str) -> None:
        self._stops.labels(reason).inc()

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        begin, result = time.monotonic(), "failed"
        try:
            yield
            result = "done"
        finally:
            self._operations.labels(name, result).inc()
            self._seconds.labels(name).observe(time.monotonic() - begin)
