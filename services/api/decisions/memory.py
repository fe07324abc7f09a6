"""How much memory VMs take from hosts. All amounts in bytes unless a name says MiB.

Two models of a VM's overhead:

- `overhead`, used everywhere: what a QEMU process needs beside the guest's memory. It is what `VM.memory_overhead`
  reports and what placement counts, so a client that adds up the records comes to the same free memory as we do.
- `xen_overhead`: the original's formula, for a VM whose next host is a Xen host (a pool in migration, comparisons).
  On QEMU hosts it would be wrong by a factor of ten for small guests, in the direction that runs hosts out of memory.

A VM counts on the host it resides on and on the one it is scheduled to, with `dynamic_min + memory_overhead` when the
question is what could be freed by ballooning, and with `dynamic_max` or `static_max` when hosts are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.api.decisions.rows import Record, Rows, existing, is_null
from shared.errors import ApiError
from shared.vm_defaults import MIB as MIB
from shared.vm_defaults import overhead as overhead

PAGE: Final = 4096

HVM_LIKE: Final = frozenset({"hvm", "pvh", "pv_in_pvh"})


def _whole_mib(amount: int) -> int:
    return -(-amount // MIB)


def xen_overhead(vm: Record) -> int:
    """What Xen needs, by the original's formula (vm-lifecycle 2): internal, external, shadow, and state per CPU."""
    kind, vcpus = vm["domain_type"], vm["VCPUs_max"]
    static_max = _whole_mib(vm["memory_static_max"])
    total = 1 + _whole_mib(38 * vcpus * PAGE)
    if kind in HVM_LIKE or kind == "unspecified":
        shadow = _whole_mib((256 * vcpus + 2 * static_max) * PAGE)
        total += 1 + max(1, math.floor(shadow * vm["HVM_shadow_multiplier"]))
    if kind == "pv_in_pvh":
        total += 23 + static_max // 90
    return total * MIB


MOST_VCPUS: Final = 64
"""What an approximate answer of `largest` leaves room for."""


def largest(vm: Record, total: int, *, approximate: bool) -> int:
    """The largest memory, in whole MiB, with which the VM takes no more than `total` bytes; at least 0."""
    counted = {**vm, "VCPUs_max": MOST_VCPUS} if approximate else vm
    return max(0, (total - overhead(counted)) // MIB * MIB)


def need(vm: Record) -> int:
    """Memory that must be free on a host for the VM to start there: its smallest footprint."""
    target: int = vm["memory_static_max"] if vm["domain_type"] == "pv_in_pvh" else vm["memory_dynamic_min"]
    return _whole_mib(target) * MIB + overhead(vm)


def check_constraints(vm: Record, pinned: str = "") -> ApiError | None:
    """Whether the four limits are in order. `pinned`: why the memory must not vary ("": it may)."""
    low, dynamic_min = vm["memory_static_min"], vm["memory_dynamic_min"]
    dynamic_max, high = vm["memory_dynamic_max"], vm["memory_static_max"]
    if pinned and not dynamic_min == dynamic_max == high:
        return ApiError("MEMORY_CONSTRAINT_VIOLATION_MAXPIN", pinned)
    if not 0 <= low <= dynamic_min <= dynamic_max <= high:
        return ApiError("MEMORY_CONSTRAINT_VIOLATION_ORDER")
    return None


def check_coercible(vm: Record) -> ApiError | None:
    """Whether limits that are out of order can be clamped at start: all that is asked for then."""
    if vm["memory_static_max"] >= vm["memory_static_min"] and vm["memory_dynamic_max"] >= vm["memory_dynamic_min"]:
        return None
    return ApiError("MEMORY_CONSTRAINT_VIOLATION")


def coerced(vm: Record) -> dict[str, int]:
    """The limits a VM starts with: dynamic ones clamped into the static ones, the target at the top."""
    low, high = vm["memory_static_min"], vm["memory_static_max"]
    dynamic_max = min(max(vm["memory_dynamic_max"], low), high)
    dynamic_min = min(max(vm["memory_dynamic_min"], low), dynamic_max)
    return {"memory_dynamic_min": dynamic_min, "memory_dynamic_max": dynamic_max, "memory_target": dynamic_max}


@dataclass(slots=True)
class Use:
    """What the VMs of one host take together."""

    overhead: int = 0
    dynamic_min: int = 0
    dynamic_max: int = 0
    static_max: int = 0

    def add(self, share: Share, sign: int = 1) -> None:
        self.overhead += sign * share.overhead
        self.dynamic_min += sign * share.dynamic_min
        self.dynamic_max += sign * share.dynamic_max
        self.static_max += sign * share.static_max


class Share(NamedTuple):
    """What one VM takes from each host it counts on. `scheduled`: of these, the one it does not reside on yet."""

    hosts: tuple[str, ...]
    scheduled: str
    overhead: int
    dynamic_min: int
    dynamic_max: int
    static_max: int


def share(vm: Record) -> Share | None:
    """None for a VM that is on no host."""
    resident, scheduled = vm["resident_on"], vm["scheduled_to_be_resident_on"]
    hosts = {ref: None for ref in (resident, scheduled) if not is_null(ref)}
    if not hosts:
        return None
    return Share(
        hosts=tuple(hosts),
        scheduled="" if is_null(scheduled) or scheduled == resident else scheduled,
        overhead=vm["memory_overhead"],
        dynamic_min=vm["memory_dynamic_min"],
        dynamic_max=vm["memory_dynamic_max"],
        static_max=vm["memory_static_max"],
    )


class MemoryIndex:
    """Memory use per host, kept up to date VM by VM, so that placement does not add up 10,000 VMs each time.

    Equal to `MemoryIndex.of(rows)` as long as every change of a VM row is passed to `update`.
    """

    def __init__(self) -> None:
        self._use: dict[str, Use] = {}
        self._shares: dict[str, Share] = {}

    @classmethod
    def of(cls, rows: Rows) -> MemoryIndex:
        index = cls()
        index.update_all(rows.rows("VM"))
        return index

    def update_all(self, vms: Mapping[str, Record]) -> None:
        for ref, vm in vms.items():
            self.update(ref, vm)

    def update(self, ref: str, vm: Record | None) -> None:
        """`vm`: the row as it is now, None when it is gone."""
        before = self._shares.get(ref)
        after = None if vm is None else share(vm)
        if before == after:
            return
        if before is not None:
            del self._shares[ref]
            for host in before.hosts:
                self._use[host].add(before, -1)
        if after is not None:
            self._shares[ref] = after
            for host in after.hosts:
                self._use.setdefault(host, Use()).add(after)

    def use(self, host: str, *, besides: str = "") -> Use:
        """Of all VMs on the host; not of `besides`, if that VM is only scheduled there (it is the one being placed)."""
        total = self._use.get(host)
        use = Use() if total is None else Use(total.overhead, total.dynamic_min, total.dynamic_max, total.static_max)
        own = self._shares.get(besides)
        if own is not None and own.scheduled == host:
            use.add(own, -1)
        return use


def capacity(rows: Rows, host: Record) -> int:
    """What the host has for VMs."""
    metrics = rows.row("host_metrics", host["metrics"])
    total: int = 0 if metrics is None else metrics["memory_total"]
    return total - int(host["memory_overhead"])


def free_memory(rows: Rows, host: str, memory: MemoryIndex | None = None, *, besides: str = "") -> int:
    """Memory for new VMs on the host with the present ones ballooned down, at least 0. Raises HANDLE_INVALID."""
    row = existing(rows, "host", host)
    use = (memory or _on(rows, host, row)).use(host, besides=besides)
    return max(0, capacity(rows, row) - use.dynamic_min - use.overhead)


def _on(rows: Rows, ref: str, host: Record) -> MemoryIndex:
    """Of one host only: its residents are listed, who is scheduled to it is not."""
    index = MemoryIndex()
    residents: Iterable[str] = host["resident_VMs"]
    for vm_ref in residents:
        index.update(vm_ref, rows.row("VM", vm_ref))
    for vm_ref, vm in rows.rows("VM").items():
        if vm["scheduled_to_be_resident_on"] == ref:
            index.update(vm_ref, vm)
    return index
