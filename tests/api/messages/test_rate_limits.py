"""Callers and rate limits over the dispatcher: calls are counted, recognised and delayed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.api.rate_limit.gate import Settings
from shared.contracts.db import Update
from tests.api.harness import Client, Pool

NOWHERE = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"
HOST = "10.0.0.7"
SLOW, FAST = 0.001, 50.0
"""Tokens per second."""


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[Pool]:
    costs = tmp_path / "costs"
    costs.write_text("VM.get_all = 5\nVM.clone = 2\n")
    running = await Pool.start(
        tmp_path, hosts=1, rate_limit=True, call_costs_file=str(costs), max_auto_registered_callers=2
    )
    yield running
    await running.stop()


async def caller(admin: Client, user_agent: str = "", client_ip: str = "") -> str:
    record = {"name_label": "c", "name_description": "", "user_agent": user_agent, "client_ip": client_ip}
    return str(await admin.call("Caller.create", record))


async def limit(admin: Client, burst: float, fill: float, *callers: str) -> str:
    record = {"name_label": "l", "name_description": "", "burst_size": burst, "fill_rate": fill}
    ref = str(await admin.call("Rate_limit.create", record))
    for each in callers:
        await admin.call("Rate_limit.add_caller", ref, each)
    return ref


def stranger(pool: Pool, admin: Client, user_agent: str = "script", address: str = HOST) -> Client:
    """Another program, with the administrator's session."""
    client = pool.client(user_agent=user_agent, address=address)
    client.session = admin.session
    return client


async def delayed(pool: Pool, client: Client, method: str, *params: Any) -> asyncio.Task[Any]:
    """The call, once it stands in line."""
    waiting = client.begin(method, *params)
    await asyncio.sleep(0)  # it gets as far as that at once
    assert pool.api.limits.waiting == 1
    return waiting


# ---- rows


async def test_a_caller_is_somebody(pool: Pool, client: Client) -> None:
    nobody = ["INVALID_VALUE", "user_agent/client_ip", "at least one of user_agent or client_ip must be set"]
    anybody = ["INVALID_VALUE", "user_agent/client_ip", "all-wildcard pattern not allowed"]
    assert await client.refusal("Caller.create", {"user_agent": "", "client_ip": ""}) == nobody
    assert await client.refusal("Caller.create", {"user_agent": "*", "client_ip": ""}) == anybody
    first = await caller(client, "python*")
    assert await caller(client, "python*") == first
    assert pool.row("Caller", first)["auto_registered"] is False
    await client.call("Caller.destroy", first)
    assert pool.row("Caller", first) is None


async def test_groups_have_simple_names(pool: Pool, client: Client) -> None:
    ref = await caller(client, "python")
    assert (await client.refusal("Caller.add_group", ref, ""))[:2] == ["INVALID_VALUE", "group"]
    assert (await client.refusal("Caller.add_group", ref, "a b"))[:2] == ["INVALID_VALUE", "group"]
    assert (await client.refusal("Caller.add_group", ref, "a" * 65))[:2] == ["INVALID_VALUE", "group"]
    assert (await client.refusal("Caller.query_group_call_count", ""))[:2] == ["INVALID_VALUE", "group"]
    await client.call("Caller.add_group", ref, "backup-1.x")
    assert pool.row("Caller", ref)["groups"] == ["backup-1.x"]
    await client.call("Caller.remove_group", ref, "backup-1.x")
    assert pool.row("Caller", ref)["groups"] == []


async def test_limits_that_are_none_are_refused(client: Client) -> None:
    def record(burst: float, fill: float) -> dict[str, Any]:
        return {"name_label": "", "name_description": "", "burst_size": burst, "fill_rate": fill}

    assert await client.refusal("Rate_limit.create", {}) == ["INVALID_VALUE", "fill_rate", "0."]
    assert await client.refusal("Rate_limit.create", record(-1, 1.5)) == ["INVALID_VALUE", "burst_size", "-1."]
    ref = await limit(client, 2, 3)
    assert await client.refusal("Rate_limit.set_fill_rate", ref, -0.5) == ["INVALID_VALUE", "fill_rate", "-0.5"]
    assert await client.refusal("Rate_limit.set_burst_size", ref, 0.0) == ["INVALID_VALUE", "burst_size", "0."]
    await client.call("Rate_limit.set_burst_size", ref, 7.0)
    assert await client.call("Rate_limit.get_burst_size", ref) == 7


async def test_a_caller_has_one_limit_and_none_when_that_goes(pool: Pool, client: Client) -> None:
    one = await caller(client, "python")
    first, second = await limit(client, 1, 1, one), await limit(client, 1, 1)
    assert pool.row("Rate_limit", first)["callers"] == [one]
    await client.call("Rate_limit.add_caller", second, one)
    assert (pool.row("Rate_limit", first)["callers"], pool.row("Rate_limit", second)["callers"]) == ([], [one])
    await client.call("Rate_limit.remove_caller", first, one)
    assert pool.row("Caller", one)["rate_limit"] == second
    await client.call("Rate_limit.destroy", second)
    assert pool.row("Caller", one)["rate_limit"] == "OpaqueRef:NULL"
    assert await client.refusal("Rate_limit.add_caller", first, NOWHERE) == ["HANDLE_INVALID", "Caller", NOWHERE]


async def test_nobody_is_counted_or_delayed_unless_it_is_switched_on(pool: Pool, client: Client) -> None:
    script = await caller(client, "script")
    await limit(client, 1, SLOW, script)
    other = stranger(pool, client)
    async with asyncio.timeout(5):
        for _ in range(5):
            await other.call("pool.get_all")
    assert await client.call("Caller.query_call_count", script) == 0
    assert Settings().enabled is False


# ---- delays


async def test_calls_beyond_the_limit_are_delayed_and_answered(limited: Pool) -> None:
    admin = await limited.login()
    script = await caller(admin, "script")
    await limit(admin, 2, FAST, script)
    other, begin = stranger(limited, admin), time.monotonic()
    answers = await asyncio.gather(*(other.call("pool.get_all") for _ in range(6)))
    assert all(len(answer) == 1 for answer in answers)
    assert time.monotonic() - begin >= 3.9 / FAST
    assert await admin.call("Caller.query_call_count", script) == 6
    assert await admin.call("Caller.query_token_usage", script) == 6


async def test_others_are_not_delayed(limited: Pool) -> None:
    admin = await limited.login()
    await limit(admin, 1, SLOW, await caller(admin, "script"))
    script, other = stranger(limited, admin), stranger(limited, admin, "program")
    await script.call("pool.get_all")
    waiting = await delayed(limited, script, "pool.get_all")
    async with asyncio.timeout(5):
        await other.call("pool.get_all")
        await admin.call("pool.get_all")
    assert not waiting.done()
    waiting.cancel()


async def test_the_most_specific_caller_with_a_limit_counts(limited: Pool) -> None:
    admin = await limited.login()
    await limit(admin, 1, SLOW, await caller(admin, "scr*"))
    exact = await caller(admin, "script", HOST)
    generous = await limit(admin, 100, FAST, exact)
    script = stranger(limited, admin)
    async with asyncio.timeout(5):
        for _ in range(5):
            await script.call("pool.get_all")
    await admin.call("Rate_limit.remove_caller", generous, exact)
    await script.call("pool.get_all")
    waiting = await delayed(limited, script, "pool.get_all")
    await admin.call("Rate_limit.set_burst_size", await _limit_of(limited, "scr*"), 50.0)
    async with asyncio.timeout(5):
        await waiting


async def _limit_of(pool: Pool, user_agent: str) -> str:
    [found] = [row["rate_limit"] for row in pool.store.rows("Caller").values() if row["user_agent"] == user_agent]
    return str(found)


async def test_calls_cost_what_the_file_says(limited: Pool) -> None:
    admin = await limited.login()
    script = await caller(admin, "script")
    await limit(admin, 6, SLOW, script)
    other = stranger(limited, admin)
    await other.call("VM.get_all")
    await other.call("pool.get_all")
    assert await admin.call("Caller.query_token_usage", script) == 6
    waiting = await delayed(limited, other, "pool.get_all")
    waiting.cancel()


async def test_an_asynchronous_call_is_answered_and_its_work_waits(limited: Pool) -> None:
    admin = await limited.login()
    ref = await limit(admin, 2, SLOW, await caller(admin, "script"))
    other = stranger(limited, admin)
    template = limited.ref("VM", "Tiny guest")
    await other.call("Async.VM.clone", template, "first")
    task = await other.call("Async.VM.clone", template, "second")
    assert limited.row("task", task)["status"] == "pending"
    assert not limited.store.by_name_label("VM", "second")
    await admin.call("Rate_limit.destroy", ref)
    await limited.until(lambda: limited.row("task", task)["status"] == "success")
    assert limited.store.by_name_label("VM", "second")


async def test_a_call_that_waits_for_its_turn_can_be_cancelled(limited: Pool) -> None:
    admin = await limited.login()
    await limit(admin, 1, SLOW, await caller(admin, "script"))
    other = stranger(limited, admin)
    await other.call("pool.get_all")
    task = await other.call("Async.VM.clone", limited.ref("VM", "Tiny guest"), "never")
    await admin.call("task.cancel", task)
    await limited.until(lambda: limited.row("task", task)["status"] == "cancelled")
    assert not limited.store.by_name_label("VM", "never")


async def test_events_are_waited_for_after_the_turn(limited: Pool) -> None:
    admin = await limited.login()
    ref = await limit(admin, 1, SLOW, await caller(admin, "script"))
    other = stranger(limited, admin)
    await other.call("pool.get_all")
    waiting = await delayed(limited, other, "event.from", ["pool"], "", 5.0)
    await admin.call("Rate_limit.destroy", ref)
    assert (await waiting)["events"]


async def test_http_requests_are_delayed_like_calls(limited: Pool) -> None:
    admin = await limited.login()
    await limit(admin, 1, SLOW, await caller(admin, "", HOST))
    origin = stranger(limited, admin)._caller
    assert limited.api.limits.request_turn(origin) is None
    assert limited.api.limits.request_turn(origin) is not None


# ---- callers that register themselves


async def test_callers_register_themselves_and_the_least_recent_go(limited: Pool) -> None:
    admin = await limited.login()

    def registered() -> set[str]:
        return {row["user_agent"] for row in limited.store.rows("Caller").values() if row["auto_registered"]}

    for name in ("one", "two", "trick*"):
        await stranger(limited, admin, name).call("pool.get_all")
    await limited.until(lambda: registered() == {"one", "two"})
    [one] = [ref for ref, row in limited.store.rows("Caller").items() if row["user_agent"] == "one"]
    assert limited.row("Caller", one)["last_access"] > "2000"
    await stranger(limited, admin, "one").call("pool.get_all")
    await stranger(limited, admin, "three").call("pool.get_all")
    await limited.until(lambda: registered() == {"one", "three"})
    assert await admin.call("Caller.query_call_count", one) == 2
    await limit(admin, 1, FAST, one)
    assert limited.row("Caller", one)["auto_registered"] is False


async def test_usage_is_told_for_callers_and_groups(limited: Pool) -> None:
    admin = await limited.login()
    script, all_of_host = await caller(admin, "script"), await caller(admin, "", HOST)
    await admin.call("Caller.add_group", all_of_host, "rack")
    for name, count in (("script", 3), ("program", 2)):
        for _ in range(count):
            await stranger(limited, admin, name).call("pool.get_all")
    assert await admin.call("Caller.query_call_count", script) == 3
    assert await admin.call("Caller.query_group_call_count", "rack") == 5
    assert await admin.call("Caller.query_group_token_usage", "rack") == 5
    usage = await admin.call("Caller.query_all_usage")
    uuid = limited.row("Caller", all_of_host)["uuid"]
    assert usage[0] == [uuid, "c", "5.000", "5"]


async def test_changed_rows_count_from_their_commit_on(limited: Pool) -> None:
    admin = await limited.login()
    script = await caller(admin, "script")
    ref = await limit(admin, 1, SLOW, script)
    other = stranger(limited, admin)
    await other.call("pool.get_all")
    waiting = await delayed(limited, other, "pool.get_all")
    await limited.write(Update(cls="Rate_limit", ref=ref, fields={"fill_rate": FAST}))
    async with asyncio.timeout(5):
        await waiting
