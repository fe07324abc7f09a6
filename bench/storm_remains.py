"""What a storm has left, seen from outside of the services: the kernel, the folders, the journals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.storm_pool import FAILED_CALL, StormPool
from pool import processes

PROGRAMS = frozenset({"qemu-img", "qemu-nbd", "qemu-storage-daemon", "setpriv"})
_SETTLES_WITHIN = 30.0
"""Seconds: less than the 60 after which transfers whose client never comes are given up, if nobody says so before."""


def loop_devices(folder: Path) -> list[str]:
    """Those whose file is in the folder: others on this machine may make some, too."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [path.parts[3] for path in files if str(folder) in path.read_text()]


def settled(look: Callable[[], list[str]], within: float = _SETTLES_WITHIN) -> list[str]:
    """What is still wrong after that many seconds."""
    deadline = time.monotonic() + within
    while True:
        try:
            found = look()
        except FAILED_CALL as error:
            found = [f"the pool does not answer: {error}"]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def unfinished(pool: StormPool) -> list[str]:
    """Datapaths, operations and tasks, when nobody does anything."""
    found = [f"datapath {each.dp} of {each.location}: {each.state}" for each in pool.datapaths()]
    for cls in ("VDI", "SR"):
        rows = pool.api(f"{cls}.get_all_records").values()
        found += [f"{cls} {row['uuid']}: {row['current_operations']}" for row in rows if row["current_operations"]]
    rows = pool.api("task.get_all_records").values()
    return found + [f"task {row['name_label']} is pending" for row in rows if row["status"] == "pending"]


def strays(pool: StormPool) -> list[str]:
    """Images that no row knows, and rows without one."""
    rows = pool.api("VDI.get_all_records").values()
    found = []
    for place in pool.repositories:
        if place.folder is None:
            continue
        known = {row["location"] for row in rows if row["SR"] == place.ref}
        there = disks(place.folder)
        found += [f"{each} in {place.folder} has no row" for each in there - known]
        found += [f"{each} has a row, and nothing in {place.folder}" for each in known - there]
    return found


def disks(folder: Path) -> set[str]:
    """Locations."""
    found = set()
    for path in folder.glob("[!.]*.json"):
        try:
            hidden = json.loads(path.read_bytes()).get("hidden")
        except FileNotFoundError:  # removed meanwhile
            continue
        if not hidden:
            found.add(path.stem)
    return found


def left(pool: StormPool) -> list[str]:
    """When every disk has been destroyed."""
    found = unfinished(pool)
    for place in pool.repositories:
        if place.folder is not None:
            found += [str(path) for path in place.folder.iterdir() if not path.name.startswith(".")]
            leases = place.folder / ".leases"
            found += [str(path) for path in leases.iterdir() if ".writer" in path.name or ".reader" in path.name]
    waiting: set[int] = set()
    for pid in processes.marked(pool.directory):
        words = processes.command_line(pid)
        works = "services.storage.transfer" in words
        if works and (service := _parent(pid)) not in waiting:
            waiting.add(service)  # one for the next transfer
        elif words and (works or Path(words[0]).name in PROGRAMS):
            found.append(f"process {pid}: {' '.join(words)[:200]}")
    sockets = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "/" in line}
    ours = [path for path in sockets if path.startswith(str(pool.directory))]
    found += [f"socket {path}" for path in ours if Path(path).suffix in (".nbd", ".stream", ".v")]
    return found


def _parent(pid: int) -> int:
    """0: it has ended."""
    try:
        return psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return 0


def mounts(folder: Path) -> list[str]:
    return [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]


def sockets(directory: str, names: list[str]) -> set[str]:
    """What `shutil.copytree` cannot copy."""
    return {name for name in names if not ((path := Path(directory, name)).is_file() or path.is_dir())}
