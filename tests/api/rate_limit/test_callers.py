from __future__ import annotations

from typing import Any

import pytest

from services.api.rate_limit.callers import Callers, Origin, Pattern

NULL = "OpaqueRef:NULL"


def row(user_agent: str = "", client_ip: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "user_agent": user_agent,
        "client_ip": client_ip,
        "groups": [],
        "rate_limit": NULL,
        "auto_registered": False,
        **fields,
    }


@pytest.mark.parametrize(
    ("pattern", "origin", "matches"),
    [
        (("python/3", "10.0.0.1"), ("python/3", "10.0.0.1"), True),
        (("python/3", "10.0.0.1"), ("python/3.1", "10.0.0.1"), False),
        (("python*", ""), ("python/3", "10.0.0.1"), True),
        (("", "10.0.*"), ("anything", "10.0.7.7"), True),
        (("", "10.0.*"), ("anything", "10.1.7.7"), False),
        (("*", "10.0.0.1"), ("", "10.0.0.1"), True),
    ],
)
def test_patterns(pattern: tuple[str, str], origin: tuple[str, str], matches: bool) -> None:
    assert Pattern.of(row(*pattern)).matches(Origin(*origin)) is matches


def test_the_most_specific_caller_comes_first() -> None:
    callers = Callers()
    patterns = {
        "address": row("", "10.0.0.1"),
        "short": row("py*", "10.0.0.1"),
        "exact": row("python", "10.0.0.1"),
        "long": row("pyth*", "10.0.0.1"),
        "agent": row("python"),
        "other": row("ruby"),
    }
    for ref, fields in patterns.items():
        callers.update(ref, fields)
    found = [known.ref for known in callers.matching(Origin("python", "10.0.0.1"))]
    assert found == ["exact", "long", "short", "agent", "address"]


def test_changed_rows_count_at_once_and_keep_their_usage() -> None:
    callers = Callers()
    callers.update("a", row("python"))
    [known] = callers.matching(Origin("python", "1"))
    known.usage.calls = 7
    callers.update("a", row("python", rate_limit="limit", groups=["g"]))
    [known] = callers.matching(Origin("python", "1"))
    assert (known.limit, known.groups, known.usage.calls) == ("limit", frozenset({"g"}), 7)
    callers.update("a", None)
    assert callers.matching(Origin("python", "1")) == ()


def test_those_who_registered_themselves_and_called_longest_ago_are_too_many() -> None:
    callers = Callers()
    for number in range(4):
        callers.update(f"{number}", row(f"agent{number}", "1", auto_registered=number != 1))
    callers["0"].usage.last = callers.tick()
    assert callers.surplus(1) == ["2", "3"]
    assert callers.surplus(3) == []
    assert callers.surplus(-1) == []
