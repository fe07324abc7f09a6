"""event.register, unregister, next: the older way to hear of changes."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from services.api.events import next_queue
from shared.contracts.db import Delete
from shared.logs import track_id
from tests.api.core import records
from tests.api.events.rows import network, rename
from tests.api.harness import Client, Pool, error_of


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The delay before each answer is one test's subject, and the others need not wait."""
    monkeypatch.setattr(next_queue, "DELAY", 0.0)


async def test_next_tells_what_happens_after_register_in_order(pool: Pool, client: Client) -> None:
    await client.call("event.register", ["network"])
    await pool.write(network("n"))
    await pool.write(rename("n", "x"))
    await pool.write(Delete(cls="network", ref="n"))
    told = await client.call("event.next")
    assert [(event["operation"], event["ref"]) for event in told] == [("add", "n"), ("mod", "n"), ("del", "n")]
    assert [event["snapshot"]["name_label"] for event in told] == ["n", "x", "x"]
    assert [int(event["id"]) for event in told] == sorted(int(event["id"]) for event in told)
    assert told[0]["timestamp"].rstrip(".").isdecimal()
    assert int(await client.call("event.get_current_id")) == int(told[-1]["id"])


async def test_snapshots_of_next_are_of_the_moment(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await pool.settled()
    await client.call("event.register", ["vm"])
    await client.call("VM.set_name_label", vm, "first")
    await client.call("VIF.create", records.vif(vm, pool.ref("network", "network")))
    told = await client.call("event.next")
    assert [len(event["snapshot"]["VIFs"]) for event in told if event["ref"] == vm] == [0, 1]


async def test_next_without_register_is_refused(client: Client) -> None:
    assert (await client.refusal("event.next"))[0] == "SESSION_NOT_REGISTERED"


async def test_unregister_takes_back_exactly_what_was_registered(pool: Pool, client: Client) -> None:
    await client.call("event.register", ["network", "VM"])
    await client.call("event.unregister", ["network", "host"])
    await pool.write(network("n"))
    vm = await pool.vm(client)
    told = await client.call("event.next")
    assert {event["class"] for event in told} == {"vm"}
    assert vm in {event["ref"] for event in told}


async def test_ids_count_on_and_timestamps_are_of_the_change(pool: Pool, client: Client) -> None:
    await client.call("event.register", ["network"])
    before = int(time.time())
    await pool.write(network("n"))
    [event] = await client.call("event.next")
    assert list(event) == ["id", "timestamp", "class", "operation", "ref", "snapshot"]
    assert before <= int(event["timestamp"].removesuffix(".")) <= time.time()
    assert event["timestamp"].endswith(".")
    assert event["id"] == str(await client.call("event.get_current_id"))
    await pool.write(rename("n", "x"))
    [event] = await client.call("event.next")
    assert int(event["id"]) == int(await client.call("event.get_current_id"))


async def test_nothing_is_counted_while_nobody_wants_it(pool: Pool, client: Client) -> None:
    await client.call("event.register", ["network"])
    before = await client.call("event.get_current_id")
    await pool.vm(client)
    assert await client.call("event.get_current_id") == before


async def test_there_is_no_first_snapshot(pool: Pool, client: Client) -> None:
    await pool.write(network("old"))
    await client.call("event.register", ["network"])
    waiting = client.begin("event.next")
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await pool.write(network("new"))
    assert [event["ref"] for event in await waiting] == ["new"]


async def test_next_without_register_names_the_session_in_public_form(client: Client) -> None:
    assert await client.refusal("event.next") == ["SESSION_NOT_REGISTERED", track_id(client.session)]


async def test_unregister_counts_as_registering(pool: Pool, client: Client) -> None:
    await client.call("event.unregister", ["VM"])
    waiting = client.begin("event.next")
    await asyncio.sleep(0.02)
    await pool.write(network("n"))
    assert not waiting.done()
    waiting.cancel()


async def test_register_adds_and_unregister_takes_equal_texts_only(pool: Pool, client: Client) -> None:
    await client.call("event.register", ["network"])
    await client.call("event.register", ["SR"])
    await client.call("event.unregister", ["Network", "network/x", "*"])
    await pool.write(network("n"))
    assert [event["ref"] for event in await client.call("event.next")] == ["n"]


async def test_sessions_have_subscriptions_of_their_own(pool: Pool, client: Client) -> None:
    other = await pool.login()
    await client.call("event.register", ["network"])
    await other.call("event.register", ["SR"])
    waiting = other.begin("event.next")
    await pool.write(network("n"))
    assert [event["ref"] for event in await client.call("event.next")] == ["n"]
    assert not waiting.done()
    waiting.cancel()


async def test_calls_at_the_same_time_get_different_events(pool: Pool, client: Client) -> None:
    await client.call("event.register", ["network"])
    waiting = [client.begin("event.next") for _ in range(3)]
    await asyncio.sleep(0)
    told: list[str] = []
    for number in range(3):
        await pool.write(network(f"n{number}"))
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            waiting.remove(one)
            told += [event["ref"] for event in one.result()]
    assert told == ["n0", "n1", "n2"]


async def test_what_belongs_together_comes_together(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_queue, "DELAY", 0.05)
    await client.call("event.register", ["network"])
    await pool.write(network("n"))
    waiting = client.begin("event.next")
    await asyncio.sleep(0)
    await pool.write(rename("n", "x"))
    assert [event["operation"] for event in await waiting] == ["add", "mod"]


async def test_a_session_that_ends_during_the_delay_is_told_so(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_queue, "DELAY", 0.05)
    session = client.session
    await client.call("event.register", ["network"])
    waiting = client.begin("event.next")
    await asyncio.sleep(0)
    await client.call("session.logout")
    assert await error_of(waiting) == ["SESSION_INVALID", session]


# ---- a queue that is full


async def test_the_queue_holds_ten_megabytes_of_json(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert next_queue.QUEUE == 10_000_000
    await pool.write(network("n"))
    size = len(orjson.dumps(await client.call("network.get_record", "n")))
    for room, refusal in ((10 * size, None), (10 * size - 1, ["EVENTS_LOST"])):
        monkeypatch.setattr(next_queue, "QUEUE", room)
        follower = await pool.login()
        await follower.call("event.register", ["network/n"])
        for number in range(10):
            await pool.write(rename("n", "ab"[number % 2]))
        if refusal is None:
            assert len(await follower.call("event.next")) == 10
        else:
            assert await follower.refusal("event.next") == refusal
        await follower.call("session.logout")


async def test_a_slow_client_hears_that_events_were_lost_and_goes_on_from_there(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_queue, "QUEUE", 2000)
    await client.call("event.register", ["network"])
    for number in range(20):
        await pool.write(network(f"n{number}"))
    assert await client.refusal("event.next") == ["EVENTS_LOST"]
    await pool.write(network("after"))
    assert [event["ref"] for event in await client.call("event.next")] == ["after"]


async def test_only_who_has_missed_something_he_wanted_has_lost_events(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_queue, "QUEUE", 2000)
    quick, elsewhere = await pool.login(), await pool.login()
    for one, cls in ((client, "network"), (quick, "network"), (elsewhere, "SR")):
        await one.call("event.register", [cls])
    for number in range(20):
        await pool.write(network(f"n{number}"))
        await quick.call("event.next")
    assert await client.refusal("event.next") == ["EVENTS_LOST"]
    waiting = elsewhere.begin("event.next")
    await asyncio.sleep(0.02)
    assert not waiting.done()
    waiting.cancel()


# ---- heartbeat


async def test_the_heartbeat_is_a_change_of_the_pool_for_next_alone(pool: Pool, client: Client) -> None:
    [ref] = pool.store.rows("pool")
    token = (await client.call("event.from", ["pool"], "", 0.0))["token"]
    following = client.begin("event.from", ["pool"], token, 30.0)
    await client.call("event.register", ["pool"])
    pool.api.hub.heartbeat()
    [event] = await client.call("event.next")
    assert (event["class"], event["operation"], event["ref"]) == ("pool", "mod", ref)
    assert event["snapshot"] == await client.call("pool.get_record", ref)
    assert not following.done()
    following.cancel()
