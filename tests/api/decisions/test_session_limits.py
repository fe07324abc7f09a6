"""Which sessions end by themselves."""

from __future__ import annotations

from typing import Any

from services.api import clock
from services.api.decisions.rows import NULL, TableRows
from services.api.decisions.session_limits import IDLE_LIMIT, LIMITS, ended, is_busy

NOW = 1_000_000.0


def session(idle: float = 0.0, **fields: Any) -> dict[str, Any]:
    base = {
        "last_active": clock.stamp(NOW - idle),
        "pool": False,
        "auth_user_name": "root",
        "originator": "",
        "parent": NULL,
        "tasks": [],
    }
    return {**base, **fields}


def rows(sessions: dict[str, dict[str, Any]], **tasks: str) -> TableRows:
    return TableRows({"session": sessions, "task": {ref: {"status": status} for ref, status in tasks.items()}})


def test_one_that_was_idle_for_a_day_ends() -> None:
    found = rows({"old": session(IDLE_LIMIT + 1), "young": session(IDLE_LIMIT - 1)})
    assert ended(found, NOW) == ["old"]


def test_an_unfinished_task_keeps_it() -> None:
    for status, stays in (("pending", True), ("cancelling", True), ("success", False), ("cancelled", False)):
        found = rows({"old": session(IDLE_LIMIT + 1, tasks=["t"])}, t=status)
        assert (ended(found, NOW) == []) is stays, status
    assert ended(rows({"old": session(IDLE_LIMIT + 1, tasks=["gone"])}), NOW) == ["old"]


def test_an_unfinished_task_of_an_ancestor_keeps_it_and_not_one_of_a_descendant() -> None:
    sessions = {
        "child": session(IDLE_LIMIT + 1, parent="middle"),
        "middle": session(IDLE_LIMIT + 1, parent="top"),
        "top": session(IDLE_LIMIT + 1, tasks=["t"]),
    }
    assert ended(rows(sessions, t="pending"), NOW) == []
    sessions["child"]["tasks"], sessions["top"]["tasks"] = ["t"], []
    assert ended(rows(sessions, t="pending"), NOW) == ["middle", "top"]


def test_parents_that_are_gone_or_in_a_circle_keep_nothing() -> None:
    orphan = rows({"s": session(parent="gone")})
    assert not is_busy(orphan, "s")
    circle = rows({"a": session(parent="b"), "b": session(parent="a")})
    assert not is_busy(circle, "a")


def test_too_many_of_one_kind_push_out_those_idle_longest() -> None:
    kinds: dict[str, dict[str, Any]] = {
        "pool": {"pool": True},
        "root": {},
        "originator": {"originator": "backup"},
        "user": {"auth_user_name": "ann", "originator": "backup"},
    }
    for kind, fields in kinds.items():
        many = {str(number): session(number, **fields) for number in range(LIMITS[kind] + 2)}
        assert set(ended(rows(many), NOW)) == {str(LIMITS[kind]), str(LIMITS[kind] + 1)}, kind


def test_users_and_originators_do_not_push_out_each_other() -> None:
    ann = {f"a{n}": session(n, auth_user_name="ann") for n in range(LIMITS["user"])}
    bob = {f"b{n}": session(n, auth_user_name="bob") for n in range(LIMITS["user"])}
    backup = {f"c{n}": session(n, originator="backup") for n in range(LIMITS["originator"])}
    other = {f"d{n}": session(n, originator="other") for n in range(LIMITS["originator"])}
    nobody = {f"e{n}": session(n, auth_user_name="") for n in range(LIMITS["root"])}
    assert ended(rows({**ann, **bob, **backup, **other, **nobody}), NOW) == []
    assert ended(rows({**nobody, "one more": session(1_000)}), NOW) == ["one more"]


def test_busy_ones_neither_count_nor_go() -> None:
    busy = {f"busy{n}": session(9_000, tasks=["t"]) for n in range(10)}
    idle = {f"idle{n}": session(n) for n in range(LIMITS["root"])}
    assert ended(rows({**busy, **idle}, t="pending"), NOW) == []
