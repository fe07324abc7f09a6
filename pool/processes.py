"""Processes by pid, without ever touching somebody else's.

A pid file may outlive its process and the number may be given to another. So a process is taken hold of by a pidfd
first, then recognised by its exact command line (which names a file of this pool), then signalled through the pidfd:
between check and signal the number cannot change hands.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MARK = "XAPI_POOL_DIR"
"""Environment variable of everything a pool starts; children inherit it, so that no stray is missed."""


class Process:
    """A running process, held by its pidfd. Close it, or use it in `with`."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.descriptor = descriptor

    @classmethod
    def open(cls, pid: int) -> Process | None:
        """None when there is no such process, or it has ended and only waits to be reaped."""
        try:
            process = cls(pid, os.pidfd_open(pid))
        except (ProcessLookupError, ValueError, OSError):
            return None
        if process.ended or _state(pid) in ("Z", "X", ""):
            process.close()
            return None
        return process

    @property
    def ended(self) -> bool:
        return self.wait(0)

    def wait(self, timeout: float) -> bool:
        """Whether it has ended within `timeout` seconds."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(max(0, int(timeout * 1000))))

    def signal(self, number: signal.Signals) -> None:
        """A process that has ended already is not an error."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def stop(self, timeout: float) -> bool:
        """SIGTERM, then SIGKILL after `timeout` seconds. Whether it ended by itself."""
        self.signal(signal.SIGTERM)
        if self.wait(timeout):
            return True
        self.signal(signal.SIGKILL)
        self.wait(5)
        return False

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find(pid_file: Path, argv: Sequence[str]) -> Process | None:
    """The process of that pid file if it still runs and is the one that was started with `argv`.

    The interpreter's own path (argv[0]) is not compared: a virtual environment's is a link.
    """
    pid = read_pid(pid_file)
    process = Process.open(pid) if pid else None
    if process is None:
        return None
    if command_line(pid)[1:] != list(argv)[1:] or process.ended:
        process.close()
        return None
    return process


def read_pid(path: Path) -> int:
    """0 when there is none."""
    try:
        return int(path.read_text().strip() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def write_pid(path: Path, pid: int) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(f"{pid}\n")
    new.replace(path)


def command_line(pid: int) -> list[str]:
    """Empty when it cannot be read."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def age(pid: int) -> float:
    """Seconds since the process was started; 0 when it is gone."""
    try:
        fields = _stat(pid)
        up = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
    return max(0.0, up - int(fields[19]) / os.sysconf("SC_CLK_TCK")) if fields else 0.0


def marked(directory: Path) -> Iterator[int]:
    """Pids of all processes, other than this one, that descend from the pool in `directory`."""
    mark = f"{MARK}={directory}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = Path(entry.path, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in environment:
            yield int(entry.name)


def by_command(directory: Path) -> dict[tuple[str, ...], int]:
    """Pids of the pool's processes by their command lines, without the interpreter's own path."""
    return {tuple(command_line(pid)[1:]): pid for pid in marked(directory)}


def stop_all(processes: Sequence[Process], timeout: float) -> list[int]:
    """SIGTERM to all, then SIGKILL to those still there after `timeout` seconds: their pids are returned."""
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout
    late = [process for process in processes if not process.wait(deadline - time.monotonic())]
    for process in late:
        process.signal(signal.SIGKILL)
    for process in late:
        process.wait(5)
    return [process.pid for process in late]


def _state(pid: int) -> str:
    try:
        return _stat(pid)[0]
    except (OSError, IndexError):
        return ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third (state) on: the second may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def parent(pid: int) -> int:
    """0 when there is none, or no such process."""
    try:
        return int(_stat(pid)[1])
    except (OSError, IndexError):
        return 0
