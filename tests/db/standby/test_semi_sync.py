"""Commits that wait for standbys."""

from __future__ import annotations

import asyncio

import pytest

from services.db.standby.semi_sync import SemiSync
from shared.contracts.db import DurableAt
from shared.errors import ApiError


def have(host: str, generation: int) -> DurableAt:
    return DurableAt(host=host, term=1, generation=generation)


async def test_a_commit_is_answered_when_as_many_standbys_have_it_as_wanted() -> None:
    sync = SemiSync(2, timeout=10)
    waiting = asyncio.create_task(sync.wait(5))
    await asyncio.sleep(0)
    sync.heard(have("a", 7))
    sync.heard(have("b", 4))
    await asyncio.sleep(0)
    assert not waiting.done()
    sync.heard(have("b", 5))
    await asyncio.wait_for(waiting, 1)
    await sync.wait(5)


async def test_one_standby_that_says_it_twice_is_one_standby() -> None:
    sync = SemiSync(2, timeout=0.05)
    sync.heard(have("a", 5))
    sync.heard(have("a", 6))
    assert sync.reached == 0


async def test_without_enough_of_them_commits_go_on_and_wait_again_when_all_is_there() -> None:
    told: list[str] = []
    sync = SemiSync(1, timeout=0.02, on_change=told.append)
    await sync.wait(5)
    await asyncio.wait_for(sync.wait(6), 0.01)
    assert len(told) == 1, "it is said once, and nobody waits in vain after that"
    sync.heard(have("a", 5))
    assert sync.degraded
    sync.heard(have("a", 6))
    assert not sync.degraded
    assert told[1:] == [""]


async def test_by_policy_the_result_is_unknown_and_later_commits_are_refused() -> None:
    sync = SemiSync(1, timeout=0.02, policy="refuse")
    sync.admit()
    with pytest.raises(ApiError, match="the result is unknown"):
        await sync.wait(5)
    with pytest.raises(ApiError, match="not saved"):
        sync.admit()
    sync.heard(have("a", 5))
    sync.admit()


async def test_nobody_is_waited_for_when_none_is_wanted() -> None:
    await asyncio.wait_for(SemiSync(0).wait(10**9), 0.1)


async def test_a_primary_that_is_replaced_lets_go_whoever_waits() -> None:
    sync = SemiSync(1, timeout=10)
    waiting = asyncio.create_task(sync.wait(5))
    await asyncio.sleep(0)
    sync.end()
    await asyncio.wait_for(waiting, 1)
