"""What the kernel says about this machine and its processes. Blocks for less than a millisecond per process."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import psutil

from shared.bus.contract import Record

_CGROUP = Path("/sys/fs/cgroup")


class Process(Record, frozen=True):
    """`cpu_seconds`: since its start, all threads, user and system. `memory`: resident bytes."""

    cpu_seconds: float
    memory: int


class Machine(Record, frozen=True):
    """`time`: monotonic seconds of the reading. `busy`, `idle`: seconds of all CPUs together. Memory in bytes."""

    time: float
    busy: float
    idle: float
    cpus: int
    memory_total: int
    memory_free: int
    load1: float
    processes: dict[int, Process] = {}


def read(pids: Collection[int]) -> Machine:
    """A process that has ended is left out."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # guest time is counted in user time too
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    memory = psutil.virtual_memory()
    limit, used = _cgroup_memory(_CGROUP)
    total_memory, free = memory.total, memory.available
    if limit is not None:
        total_memory = min(total_memory, limit)
        free = min(free, max(0, limit - used))
    return Machine(
        time=time.monotonic(),
        busy=total - idle,
        idle=idle,
        cpus=psutil.cpu_count() or 1,
        memory_total=total_memory,
        memory_free=free,
        load1=psutil.getloadavg()[0],
        processes={pid: found for pid in pids if (found := _process(pid)) is not None},
    )


def _process(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Process(cpu_seconds=times.user + times.system, memory=process.memory_info().rss)
    except psutil.Error:
        return None


def _cgroup_memory(folder: Path) -> tuple[int | None, int]:
    """Limit and use, where this is a container with one."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return None, 0
        return int(limit), int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None, 0
