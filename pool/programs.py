"""Which processes a pool has. `supervisor` runs whatever list it is given; this is the list of a real pool."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from pool.plan import SIMULATED, Plan

STAGES: tuple[tuple[str, ...], ...] = (
    ("db",),
    ("storage", "network"),
    ("vm", "metrics"),
    ("ha", "alerts"),
    ("cli",),
    ("api",),
)
"""Services may start in any order and do; they are stopped stage by stage, the last stage first, so that each can
still reach what it needs while it finishes its work."""

SUCCESSORS = frozenset({"db", "alerts"})
"""On every host that may become coordinator, which simulated ones may not."""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One process. `group`: its folder in the pool's directory. `argv`: identifies it, so it names its own file."""

    group: str
    service: str
    argv: list[str]
    stage: int = 0

    @property
    def name(self) -> str:
        return f"{self.group}/{self.service}"

    def pid_file(self, directory: Path) -> Path:
        return directory / self.group / f"{self.service}.pid"

    def stay_down_file(self, directory: Path) -> Path:
        """While it is there the program is not started; it makes it itself, when somebody asks it to go."""
        return directory / self.group / self.service / "stay-down"

    def log_file(self, directory: Path) -> Path:
        return directory / self.group / f"{self.service}.log"


def programs(directory: Path, plan: Plan) -> list[Program]:
    found: list[Program] = []
    for group, _ in plan.groups():
        for stage, services in enumerate(STAGES):
            found += [
                Program(group=group, service=service, argv=_argv(directory, group, service), stage=stage)
                for service in services
                if group != SIMULATED or service not in SUCCESSORS
            ]
    return found


def save(directory: Path, listed: list[Program]) -> None:
    (directory / "programs.json").write_bytes(msgspec.json.format(msgspec.json.encode(listed)) + b"\n")


def load(directory: Path) -> list[Program]:
    """What was started last. Raises `OSError`, `msgspec.DecodeError`."""
    return msgspec.json.decode((directory / "programs.json").read_bytes(), type=list[Program])


def down_file(directory: Path, group: str) -> Path:
    """While it is there nothing of that group is started (`pool.outage`)."""
    return directory / group / "down"


def config_file(directory: Path, group: str, service: str) -> Path:
    return directory / group / f"{service}.toml"


def _argv(directory: Path, group: str, service: str) -> list[str]:
    return [sys.executable, "-m", f"services.{service}", "--config", str(config_file(directory, group, service))]
