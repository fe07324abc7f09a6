"""Figures that hosts and VMs can be asked for: the latest sample of the metrics service. Nothing is archived yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import Lock, operation
from shared.bus.contract import Empty
from shared.contracts.metrics import SAMPLE, HostFigures
from shared.errors import ApiError

KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Source:
    """`read`: its value in a sample of the host, or of the VM. `most`: the greatest it can be."""

    description: str
    units: str
    read: Callable[[Any], float]
    most: float = float("inf")


HOST: Final[dict[str, Source]] = {
    "cpu_avg": Source("Average use of all CPUs", "(fraction)", lambda sample: sample.cpu, 1.0),
    "memory_total_kib": Source("Memory of the host", "KiB", lambda sample: sample.memory_total / KIB),
    "memory_free_kib": Source("Memory that is free", "KiB", lambda sample: sample.memory_free / KIB),
    "loadavg": Source("Length of the run queue, average of a minute", "(fraction)", lambda sample: sample.load1),
}
VM: Final[dict[str, Source]] = {
    "cpu_usage": Source("Use of the VM's CPUs, added up", "(fraction)", lambda sample: sample.cpu),
    "memory": Source("Memory of the VM", "B", lambda sample: sample.memory),
    "memory_target": Source("Memory that the VM is meant to have", "B", lambda sample: sample.memory_target),
}


async def _sample(call: Call, host: str) -> HostFigures:
    return await call.api.bus.call(SAMPLE, Empty(), host=call.api.uuid_of("host", host))


async def _vm_sample(call: Call, vm: str) -> Any:
    """None before the first sample that has the VM."""
    row = existing(call.store, "VM", vm)
    sample = await _sample(call, row["resident_on"])
    return next((figures for figures in sample.vms if figures.vm == row["uuid"]), None)


def _records(sources: Mapping[str, Source], sample: Any) -> list[dict[str, Any]]:
    return [
        {
            "name_label": name,
            "name_description": source.description,
            "enabled": True,
            "standard": True,
            "units": source.units,
            "min": 0.0,
            "max": source.most,
            "value": float(source.read(sample)),
        }
        for name, source in sources.items()
    ]


def _value(sources: Mapping[str, Source], name: str, sample: Any) -> float:
    if name not in sources or sample is None:
        raise ApiError("INVALID_VALUE", "data_source", name)
    return float(sources[name].read(sample))


@operation("host.get_data_sources", forwarded=True)
async def get_host_sources(call: Call, host: str) -> list[dict[str, Any]]:
    return _records(HOST, await _sample(call, host))


@operation("host.query_data_source", forwarded=True)
async def query_host_source(call: Call, host: str, data_source: str) -> float:
    return _value(HOST, data_source, await _sample(call, host))


@operation("host.forget_data_source_archives", forwarded=True)
def forget_host_archives(call: Call, host: str, data_source: str) -> None:
    """There are none."""


_VM_LOCK: Final = Lock("VM", "data_source_op")


@operation("VM.get_data_sources", _VM_LOCK)
async def get_vm_sources(call: Call, self: str) -> list[dict[str, Any]]:
    sample = await _vm_sample(call, self)
    return [] if sample is None else _records(VM, sample)


@operation("VM.query_data_source", _VM_LOCK)
async def query_vm_source(call: Call, self: str, data_source: str) -> float:
    return _value(VM, data_source, await _vm_sample(call, self))


@operation("VM.forget_data_source_archives", _VM_LOCK)
def forget_vm_archives(call: Call, self: str, data_source: str) -> None:
    """There are none."""
