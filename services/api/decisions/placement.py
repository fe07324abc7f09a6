"""Where a VM can run, and where it shall (vm-lifecycle 2).

`assert_can_boot_here` names the first thing that is missing; `choose_host` weighs the hosts where nothing is.
What is the same for all hosts (parameters, SRs, networks) is asked once per VM, so a choice among many hosts is cheap.

Not decided here yet: CPU levelling, IOMMU, SR-IOV functions, anti-affinity groups, workload balancing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from services.api.decisions import memory as memory_use
from services.api.decisions import passed_devices
from services.api.decisions.host_operations import is_live
from services.api.decisions.memory import HVM_LIKE, MemoryIndex
from services.api.decisions.rows import Record, Rows, existing, is_null, is_true, the_pool
from shared.errors import ApiError

Live = Callable[[str], bool]
"""Whether a host is alive at this moment, when the caller knows better than `host_metrics.live`."""

POSSIBLE_BEST: Final = 1000
"""Value of a host that has room for all its VMs at `dynamic_max`; 0 is room at `dynamic_min` and no more."""


class Needs:
    """What one VM asks of any host: the part of the questions that does not depend on the host.

    Raises HANDLE_INVALID when the VM does not exist.
    """

    def __init__(self, rows: Rows, ref: str) -> None:
        self.rows = rows
        self.ref = ref
        self.vm = existing(rows, "VM", ref)

    @cached_property
    def bad_parameter(self) -> ApiError | None:
        vm = self.vm
        for name, value in (("VCPUs-max", vm["VCPUs_max"]), ("VCPUs-at-startup", vm["VCPUs_at_startup"])):
            if value < 1:
                return ApiError("INVALID_VALUE", name, value)
        if vm["VCPUs_at_startup"] > vm["VCPUs_max"]:
            text = "value greater than VCPUs-max"
            return ApiError("VALUE_NOT_SUPPORTED", "VCPUs-at-startup", vm["VCPUs_at_startup"], text)
        if not vm["is_control_domain"] and (error := memory_use.check_coercible(vm)):
            return error
        if vm["HVM_shadow_multiplier"] < 1:
            return ApiError("INVALID_VALUE", "HVM_shadow_multiplier", f"{vm['HVM_shadow_multiplier']:g}")
        return self._bad_crash_action()

    def _bad_crash_action(self) -> ApiError | None:
        action: str = self.vm["actions_after_crash"]
        if action == "rename_restart":
            reason = "option would leak a domain; VMs and not domains are managed by this API"
        elif action.startswith("coredump_") and self.vm["domain_type"] in HVM_LIKE:
            reason = "cannot invoke a coredump of an HVM, PVH or PV-in-PVH domain"
        else:
            return None
        return ApiError("VALUE_NOT_SUPPORTED", "VM.actions_after_crash", action, reason)

    @cached_property
    def srs(self) -> dict[str, frozenset[str]]:
        """Each SR that a disk of the VM is on, with the hosts that have it attached."""
        vbds = (self.rows.row("VBD", ref) for ref in self.vm["VBDs"])
        vdis = [vbd["VDI"] for vbd in vbds if vbd is not None and not vbd["empty"]]
        if self.vm["power_state"] == "Suspended":
            vdis.append(self.vm["suspend_VDI"])
        found = (self.rows.row("VDI", ref) for ref in vdis)
        return {vdi["SR"]: attached_on(self.rows, vdi["SR"]) for vdi in found if vdi is not None}

    @cached_property
    def networks(self) -> dict[str, Reach]:
        vifs = (self.rows.row("VIF", ref) for ref in self.vm["VIFs"])
        return {vif["network"]: reach(self.rows, vif["network"], self.ref) for vif in vifs if vif is not None}

    @cached_property
    def footprint(self) -> int:
        return memory_use.need(self.vm)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a network can be had. `hosts` None: everywhere. `enslaved`: its interface there is part of a bond."""

    hosts: frozenset[str] | None
    enslaved: frozenset[str] = frozenset()


def attached_on(rows: Rows, sr: str) -> frozenset[str]:
    """The hosts where the SR is plugged."""
    row = rows.row("SR", sr)
    pbds = (rows.row("PBD", ref) for ref in (row["PBDs"] if row is not None else ()))
    return frozenset(pbd["host"] for pbd in pbds if pbd is not None and pbd["currently_attached"])


def reach(rows: Rows, network: str, vm: str) -> Reach:
    """A network with interfaces is where these are, an internal one where its running VMs are (host-services 1.2)."""
    row = rows.row("network", network)
    if row is None:
        return Reach(frozenset())
    pifs = [pif for pif in (rows.row("PIF", ref) for ref in row["PIFs"]) if pif is not None]
    if pifs:
        enslaved = frozenset(pif["host"] for pif in pifs if not is_null(pif["bond_slave_of"]))
        return Reach(frozenset(pif["host"] for pif in pifs), enslaved)
    if is_true(row["other_config"].get("assume_network_is_shared")) or not row["managed"]:
        return Reach(None)
    used = frozenset(_hosts_using(rows, row, vm))
    return Reach(used or None)


def _hosts_using(rows: Rows, network: Record, besides: str) -> Iterator[str]:
    for ref in network["VIFs"]:
        vif = rows.row("VIF", ref)
        vm = None if vif is None or vif["VM"] == besides else rows.row("VM", vif["VM"])
        if vm is not None and vm["power_state"] == "Running" and not is_null(vm["resident_on"]):
            yield vm["resident_on"]


def _unreachable(needs: Needs, host: str) -> ApiError | None:
    for sr, hosts in needs.srs.items():
        if host not in hosts:
            return ApiError("VM_REQUIRES_SR", needs.ref, sr)
    for network, where in needs.networks.items():
        if where.hosts is not None and host not in where.hosts:
            return ApiError("VM_REQUIRES_NETWORK", needs.ref, network)
        if host in where.enslaved:
            return ApiError("HOST_CANNOT_ATTACH_NETWORK", host, network)
    return None


def _refused(needs: Needs, host: str, row: Record, live: Live | None) -> ApiError | None:
    """Everything but memory and number of CPUs, in order."""
    if needs.bad_parameter is not None:
        return needs.bad_parameter
    if not (is_live(needs.rows, row) if live is None else live(host)):
        return ApiError("HOST_NOT_LIVE")
    vm = needs.vm
    if error := _foreign_control_domain(vm, host):
        return error
    if not row["enabled"] and not vm["is_control_domain"]:
        return ApiError("HOST_DISABLED", host)
    versions: list[int] = row["virtual_hardware_platform_versions"]
    if vm["hardware_platform_version"] not in versions:
        offered = "[" + "; ".join(map(str, sorted(versions))) + "]"
        return ApiError(
            "VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION",
            host,
            offered,
            needs.ref,
            vm["hardware_platform_version"],
        )
    if error := _unreachable(needs, host):
        return error
    if error := passed_devices.elsewhere(needs.rows, vm, needs.ref, host):
        return error
    if vm["domain_type"] in HVM_LIKE and not any("hvm" in capability for capability in row["capabilities"]):
        return ApiError("VM_HVM_REQUIRED", needs.ref)
    return None


def _foreign_control_domain(vm: Record, host: str) -> ApiError | None:
    if vm["is_control_domain"] and not is_null(vm["affinity"]) and vm["affinity"] != host:
        return ApiError("OPERATION_NOT_ALLOWED", "a control domain runs only on the host it has affinity to")
    return None


def _too_few_cpus(needs: Needs, host: Record) -> ApiError | None:
    if is_true(needs.vm["platform"].get("vcpu-unrestricted")):
        return None
    count = int(host["cpu_info"].get("cpu_count", 0))
    if needs.vm["VCPUs_max"] > count:
        return ApiError("HOST_NOT_ENOUGH_PCPUS", needs.vm["VCPUs_max"], count)
    return None


def _can_boot(
    needs: Needs, host: str, row: Record, memory: MemoryIndex | None, live: Live | None, check_memory: bool
) -> ApiError | None:
    if error := _refused(needs, host, row, live):
        return error
    if check_memory:
        available = memory_use.free_memory(needs.rows, host, memory, besides=needs.ref)
        if needs.footprint > available:
            return ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", needs.footprint, available)
    return _too_few_cpus(needs, row)


def assert_can_boot_here(
    rows: Rows,
    vm: str,
    host: str,
    memory: MemoryIndex | None = None,
    *,
    live: Live | None = None,
    check_memory: bool = True,
) -> ApiError | None:
    """Why the VM cannot start on that host now; None if it can. Raises HANDLE_INVALID."""
    return _can_boot(Needs(rows, vm), host, existing(rows, "host", host), memory, live, check_memory)


def check_start_on(
    rows: Rows, vm: str, host: str, memory: MemoryIndex | None = None, *, live: Live | None = None
) -> ApiError | None:
    """Why `VM.start_on` that host is refused; None if it is not. Raises HANDLE_INVALID."""
    row = existing(rows, "host", host)
    needs = Needs(rows, vm)
    if error := _foreign_control_domain(needs.vm, host):
        return error
    if is_evacuating(row):
        return ApiError("HOST_EVACUATE_IN_PROGRESS", host)
    return _can_boot(needs, host, row, memory, live, True)


def is_evacuating(host: Record) -> bool:
    return "evacuate" in host["current_operations"].values()


def possible_hosts(rows: Rows, vm: str, memory: MemoryIndex | None = None, *, live: Live | None = None) -> list[str]:
    """The hosts where the VM could start now. Raises HANDLE_INVALID."""
    needs = Needs(rows, vm)
    index = memory or MemoryIndex.of(rows)
    return [ref for ref, host in rows.rows("host").items() if _can_boot(needs, ref, host, index, live, True) is None]


# ---- choosing


@dataclass(frozen=True, slots=True)
class Room:
    """A host with the VM added. Bytes left for guests when all VMs have their `static_max`, `dynamic_max`, ...

    `possible`: 0 to `POSSIBLE_BEST`, how far all VMs can be ballooned up between their dynamic limits; -1: not at all.
    """

    host: str
    definite: int
    probable: int
    possible: int


def _room(needs: Needs, host: str, row: Record, memory: MemoryIndex) -> Room:
    use = memory.use(host, besides=needs.ref)
    vm = needs.vm
    available = memory_use.capacity(needs.rows, row) - use.overhead - memory_use.overhead(vm)
    low = use.dynamic_min + vm["memory_dynamic_min"]
    high = use.dynamic_max + vm["memory_dynamic_max"]
    return Room(
        host=host,
        definite=available - use.static_max - vm["memory_static_max"],
        probable=available - high,
        possible=_compression(available, low, high),
    )


def _compression(available: int, low: int, high: int) -> int:
    if available >= high:
        return POSSIBLE_BEST
    return -1 if available < low else POSSIBLE_BEST * (available - low) // (high - low)


def _ordered(rooms: list[tuple[int, str]], rng: random.Random) -> Iterator[str]:
    """The best hosts first, but not always the same: of n, the one at n times the square of a random number."""
    left = [host for _, host in sorted(rooms, key=lambda room: room[0], reverse=True)]
    while left:
        yield left.pop(int(len(left) * rng.random() ** 2))


def _candidates(needs: Needs, rooms: list[Room], rng: random.Random) -> Iterator[str]:
    """Hosts in the order in which they are tried: by affinity, then by how sure it is that the VM fits."""
    affinity = needs.vm["affinity"]
    yield from (room.host for room in rooms if room.host == affinity and room.possible >= 0)
    pool = the_pool(needs.rows)
    handicapped = pool["master"] if pool is not None and pool["coordinator_bias"] else ""

    def fair(host: str, value: int) -> tuple[int, str]:
        """The coordinator has other work: it counts half."""
        return ((value - 1) // 2 if host == handicapped else value, host)

    yield from _ordered([fair(room.host, room.definite) for room in rooms if room.definite >= 0], rng)
    yield from _ordered([fair(room.host, room.probable) for room in rooms if room.probable >= 0], rng)
    yield from _ordered([(room.possible, room.host) for room in rooms if room.possible >= 0], rng)


def choose_host(
    rows: Rows,
    vm: str,
    rng: random.Random,
    memory: MemoryIndex | None = None,
    *,
    live: Live | None = None,
) -> str:
    """The host to start the VM on. Raises NO_HOSTS_AVAILABLE (without saying why: ask `assert_can_boot_here`).

    When no host has the memory, one is chosen as if memory did not matter, and the error comes from there.
    """
    needs = Needs(rows, vm)
    if needs.bad_parameter is not None:
        raise ApiError("NO_HOSTS_AVAILABLE")
    index = memory or MemoryIndex.of(rows)
    fit = {
        ref: host
        for ref, host in rows.rows("host").items()
        if not is_evacuating(host) and _can_boot(needs, ref, host, index, live, False) is None
    }
    rooms = [_room(needs, ref, host, index) for ref, host in fit.items()]
    for host in _candidates(needs, rooms, rng):
        if needs.footprint <= memory_use.free_memory(rows, host, index, besides=vm):
            return host
    best_first = _ordered([(room.probable, room.host) for room in rooms], rng)
    for host in best_first:
        return host
    raise ApiError("NO_HOSTS_AVAILABLE")
