"""One host's processes ended as by a power failure, and brought back: how a dead host looks to the others.

While `<host>/down` is there the supervisor starts nothing of that host.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

from pool import configuration, plan, processes, programs, supervisor
from pool.plan import PlanError
from pool.processes import Process

DEATH_TIMEOUT = 10.0
"""Seconds within which everything is gone and the supervisor has noticed."""
INTERVAL = 0.05


def host_down(directory: Path, group: str) -> None:
    """SIGKILL to the host's services and guests; returns when none is left. Raises `PlanError`."""
    _check(directory, group)
    programs.down_file(directory, group).touch()
    deadline = time.monotonic() + DEATH_TIMEOUT
    while left := [*_kill(directory, group), *_not_noticed(directory, group)]:
        if time.monotonic() > deadline:
            raise PlanError(f"{group} is not down after {DEATH_TIMEOUT:g} s: {', '.join(left)}")
        time.sleep(INTERVAL)


def host_up(directory: Path, group: str) -> None:
    """The supervisor starts the host's services again. Raises `PlanError`."""
    _check(directory, group)
    for program in programs.load(directory):
        if program.group == group:
            program.stay_down_file(directory).unlink(missing_ok=True)
    programs.down_file(directory, group).unlink(missing_ok=True)


def _check(directory: Path, group: str) -> None:
    pool = plan.load(directory)
    groups = [name for name, _ in pool.groups()] if pool is not None else []
    if group not in groups:
        raise PlanError(f"the pool in {directory} has no host {group}; there are: {', '.join(groups) or 'none'}")
    if not supervisor.runs(directory):
        raise PlanError(f"the pool in {directory} does not run")


def _kill(directory: Path, group: str) -> Iterator[str]:
    """Those that were still there, one of which may have been started at this moment."""
    mine = {tuple(program.argv[1:]) for program in programs.load(directory) if program.group == group}
    guests = f"{configuration.run_folder(directory, group)}/"
    for pid in processes.marked(directory):
        command = processes.command_line(pid)[1:]
        if tuple(command) not in mine and not any(guests in word for word in command):
            continue
        if (process := Process.open(pid)) is not None:
            with process:
                process.signal(signal.SIGKILL)
            yield f"pid {pid}"


def _not_noticed(directory: Path, group: str) -> list[str]:
    """Services that the supervisor does not hold down yet."""
    state = supervisor.read_state(directory)
    children = state.children if state is not None else []
    return [child.name for child in children if child.name.startswith(f"{group}/") and child.state != "down"]
