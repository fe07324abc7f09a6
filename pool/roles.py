"""Which host is the coordinator: the hosts' role files say it. The plan only says which one was the first.

`<pool directory>/<group>/pool.conf` (`shared.host_role`), written when the pool is made and from then on by its hosts.
In a container only the file of its own host is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pool.plan import Host, Plan
from shared import host_role
from shared.host_role import COORDINATOR, HostRole, member_of


class Said(NamedTuple):
    """`at`: when the file was written, Unix time."""

    role: HostRole
    at: float = 0.0


def role_file(directory: Path, group: str) -> Path:
    return directory / group / "pool.conf"


def read(directory: Path, plan: Plan) -> dict[str, Said]:
    """By group, where there is a file."""
    found = {}
    for group, _ in plan.groups():
        path = role_file(directory, group)
        if path.exists():
            found[group] = Said(host_role.read(path), path.stat().st_mtime)
    return found


def elected(plan: Plan, said: Mapping[str, Said]) -> Host:
    """The host that calls itself coordinator, else the one that most others name, else the first.

    Two may call themselves so: one of them was away when it was replaced. Then the one that more others name, or that
    said it last.
    """
    first = plan.first_coordinator
    named = [one.role.coordinator for one in said.values()]

    def claim(host: Host) -> tuple[bool, int, float, bool]:
        own = said.get(host.name)
        claims = own is not None and own.role == COORDINATOR
        return claims, named.count(host.address), own.at if own is not None and claims else 0.0, host is first

    return max(plan.hosts, key=claim)


def coordinator(directory: Path, plan: Plan) -> Host:
    return elected(plan, read(directory, plan))


def write_missing(directory: Path, plan: Plan) -> None:
    """A role for every group that has none yet: all of them, when the pool is made. Raises `OSError`."""
    said = read(directory, plan)
    chosen = elected(plan, said)
    for group, hosts in plan.groups():
        if group not in said:
            path = role_file(directory, group)
            path.parent.mkdir(parents=True, exist_ok=True)
            host_role.write(path, COORDINATOR if chosen in hosts else member_of(chosen.address))
