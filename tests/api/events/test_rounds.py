"""When those who wait are told."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.api.events import rounds
from services.api.events.rounds import PART, Rounds, Tell

LONG_GAP = 5.0
"""Seconds, so that a busy machine is no gap."""

Waiting = dict[str, list["asyncio.Future[str | None]"]]


class Calls:
    """Groups of calls that wait, each told the name of its group."""

    def __init__(self) -> None:
        self.waiting: Waiting = {}
        self.looked_at: list[str] = []
        self.rounds: Rounds[str, str] = Rounds(self._look)

    def wait(self, group: str, count: int = 1) -> list[asyncio.Future[str | None]]:
        loop = asyncio.get_running_loop()
        calls: list[asyncio.Future[str | None]] = [loop.create_future() for _ in range(count)]
        self.waiting.setdefault(group, []).extend(calls)
        return calls

    def _look(self, group: str) -> list[Tell[str]]:
        self.looked_at.append(group)
        return [(call, group) for call in self.waiting.pop(group, [])]


async def test_a_group_is_told_in_the_next_turn_of_the_loop() -> None:
    calls = Calls()
    [call] = calls.wait("a")
    calls.rounds.add("a")
    assert not call.done()
    assert await asyncio.wait_for(call, 30) == "a"


async def test_a_group_that_is_due_twice_is_looked_at_once() -> None:
    calls = Calls()
    [call] = calls.wait("a")
    calls.rounds.add("a")
    calls.rounds.add("a")
    await call
    await asyncio.sleep(0)
    assert calls.looked_at == ["a"]


async def test_many_are_told_in_parts_and_others_get_their_turn_between() -> None:
    calls = Calls()
    waiting = calls.wait("a", 5 * PART)
    calls.rounds.add("a")
    counts = []
    while not all(call.done() for call in waiting):
        await asyncio.sleep(0)
        counts.append(sum(call.done() for call in waiting))
    assert len(counts) >= 5
    assert max(later - before for before, later in zip([0, *counts], counts, strict=False)) <= PART


async def test_a_round_covers_all_who_are_due_whether_they_want_the_same_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "GAP", LONG_GAP)
    calls = Calls()
    waiting = [calls.wait(f"g{number}")[0] for number in range(5 * PART)]
    begun = time.monotonic()
    for number in range(5 * PART):
        calls.rounds.add(f"g{number}")
    assert await asyncio.gather(*waiting) == [f"g{number}" for number in range(5 * PART)]
    assert time.monotonic() - begun < LONG_GAP


async def test_after_a_round_of_many_the_next_waits_and_takes_all_that_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "GAP", 1.0)
    calls = Calls()
    begun = time.monotonic()
    many = calls.wait("a", 2 * PART)
    calls.rounds.add("a")
    await asyncio.gather(*many)
    [first] = calls.wait("b")
    calls.rounds.add("b")
    await asyncio.sleep(0.05)
    assert not first.done()
    [second] = calls.wait("c")
    calls.rounds.add("c")
    await first
    assert time.monotonic() - begun >= 1.0
    assert second.done()


async def test_a_round_of_few_needs_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "GAP", LONG_GAP)
    calls = Calls()
    begun = time.monotonic()
    for _ in range(20):
        few = calls.wait("a", 3)
        calls.rounds.add("a")
        await asyncio.gather(*few)
    assert time.monotonic() - begun < LONG_GAP


async def test_who_is_told_at_once_does_not_wait_for_the_rest() -> None:
    calls = Calls()
    many = calls.wait("a", 2 * PART)
    calls.rounds.add("a")
    await asyncio.gather(*many)
    [later] = calls.wait("b")
    calls.rounds.add("b")
    [task] = calls.wait("task")
    calls.rounds.add_at_once("task")
    assert await task == "task"
    assert not later.done()
    assert await later == "b"


async def test_a_call_that_has_gone_away_is_passed_over() -> None:
    calls = Calls()
    gone, here = calls.wait("a", 2)
    gone.cancel()
    calls.rounds.add("a")
    assert await here == "a"
