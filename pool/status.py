"""How a pool's processes are, as a table."""

from __future__ import annotations

from pathlib import Path

from pool import broker, plan, processes, programs, roles, supervisor
from pool.plan import Plan
from pool.processes import Process

_BETTER_WORDS = {"waiting": "restarting", "down": "down"}
"""For what the supervisor says of a process that does not run."""


def status(directory: Path) -> tuple[str, bool]:
    """The table, and whether all of it runs."""
    pool = plan.load(directory)
    if pool is None:
        return f"there is no pool in {directory}", False
    rows = [("supervisor", *_process(supervisor.find(directory)), "")]
    rows.append(("RabbitMQ", *_broker(directory), ""))
    state = supervisor.read_state(directory)
    children = {child.name: child for child in state.children} if state else {}
    for program in programs.load(directory) if (directory / "programs.json").exists() else []:
        pid, found, uptime = _process(processes.find(program.pid_file(directory), program.argv))
        child = children.get(program.name)
        if child is not None and found != "running" and child.state in _BETTER_WORDS:
            found = _BETTER_WORDS[child.state]
        note = f"{child.restarts} restarts, last: {child.last_exit}" if child and child.restarts else ""
        rows.append((program.name, pid, found, uptime, note))
    return "\n".join([_about(directory, pool), "", *_table(rows)]), all(
        row[2] in ("running", "elsewhere") for row in rows
    )


def _about(directory: Path, pool: Plan) -> str:
    coordinator = roles.coordinator(directory, pool)
    simulated = sum(host.simulated for host in pool.hosts)
    return (
        f"{pool.url(coordinator)} ({coordinator.name})  {len(pool.hosts) - simulated} hosts ({pool.settings.backend})"
        f"{f' and {simulated} simulated ones' if simulated else ''}"
    )


def _process(process: Process | None) -> tuple[str, str, str]:
    """Pid, state, uptime."""
    if process is None:
        return "-", "stopped", ""
    with process:
        return str(process.pid), "running", _duration(processes.age(process.pid))


def _broker(directory: Path) -> tuple[str, str, str]:
    return _process(broker.process(directory)) if broker.private(directory) else ("-", "elsewhere", "")


def _table(rows: list[tuple[str, str, str, str, str]]) -> list[str]:
    header = ("process", "pid", "state", "uptime", "")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
