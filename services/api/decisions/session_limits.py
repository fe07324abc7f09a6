"""Which sessions end by themselves: idle for a day, or too many of one kind (`wire-protocol` 6.3). Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.api import clock
from services.api.decisions.rows import Record, Rows

IDLE_LIMIT: Final = 86400.0

LIMITS: Final = {"user": 500, "originator": 500, "root": 400, "pool": 400}
"""Sessions of one user other than root, of root with one originator, of root without any, of hosts."""

ROOT: Final = ("", "root")
"""Names of users that count as root."""

_DONE: Final = frozenset({"success", "failure", "cancelled"})


def ended(store: Rows, now: float) -> list[str]:
    """Sessions to end. One with an unfinished task of its own, or whose parent has one, neither ends nor counts."""
    gone: list[str] = []
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for ref, row in store.rows("session").items():
        if is_busy(store, ref):
            continue
        if now - clock.seconds(row["last_active"]) > IDLE_LIMIT:
            gone.append(ref)
        else:
            groups.setdefault(_group(row), []).append((row["last_active"], ref))
    for (kind, _), members in groups.items():
        gone += [ref for _, ref in sorted(members)[: max(0, len(members) - LIMITS[kind])]]
    return gone


def is_busy(store: Rows, session: str) -> bool:
    """Whether it, or a session that it was opened from, has an unfinished task."""
    return any(_has_unfinished_task(store, row) for row in _line(store, session))


def _line(store: Rows, session: str) -> Iterator[Record]:
    """The session, its parent, the parent's parent, ..., each once."""
    seen: set[str] = set()
    row = store.row("session", session)
    while row is not None and session not in seen:
        seen.add(session)
        yield row
        session = row["parent"]
        row = store.row("session", session)


def _has_unfinished_task(store: Rows, session: Record) -> bool:
    tasks = (store.row("task", ref) for ref in session["tasks"])
    return any(task is not None and task["status"] not in _DONE for task in tasks)


def _group(session: Record) -> tuple[str, str]:
    """What a session counts against: a key of `LIMITS`, and whose."""
    if session["pool"]:
        return "pool", ""
    if session["auth_user_name"] not in ROOT:
        return "user", session["auth_user_name"]
    return ("originator", session["originator"]) if session["originator"] else ("root", "")
