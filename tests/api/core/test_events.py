"""event.from and its older brothers: what clients hear of changes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from services.api.events import next_queue
from shared.contracts.db import Change, Create, Delete, Update
from tests.api.core import records
from tests.api.harness import Client, Pool, error_of


async def look(client: Client, classes: list[str], token: str = "", timeout: float = 0.0) -> Any:
    return await client.call("event.from", classes, token, timeout)


def kinds(answer: Any) -> list[tuple[str, str, str]]:
    return [(event["class"], event["operation"], event["ref"]) for event in answer["events"]]


def network(ref: str, **fields: Any) -> Create:
    return Create(cls="network", ref=ref, fields={"name_label": ref, "bridge": ref, **fields})


def rename(ref: str, name: str) -> Update:
    return Update(cls="network", ref=ref, fields={"name_label": name})


async def test_from_the_beginning_everything_that_exists_is_added(pool: Pool, client: Client) -> None:
    answer = await look(client, ["*"])
    assert {operation for _, operation, _ in kinds(answer)} == {"add"}
    seen = {ref for _, _, ref in kinds(answer)}
    for cls in ("VM", "host", "network", "SR", "pool", "PBD"):
        assert seen.issuperset(pool.store.rows(cls))
    assert seen.isdisjoint(pool.store.rows("session"))
    for event in answer["events"]:
        if event["class"] == "vm":
            assert event["snapshot"] == await client.call("VM.get_record", event["ref"])
            assert isinstance(event["id"], str)
            assert event["timestamp"] == "0.0"


async def test_a_token_says_how_far_a_client_has_seen(pool: Pool, client: Client) -> None:
    token = (await look(client, ["network"]))["token"]
    assert len(token) == 41
    assert kinds(await look(client, ["network"], token)) == []
    await pool.write(network("n1"))
    answer = await look(client, ["network"], token)
    assert kinds(answer) == [("network", "add", "n1")]
    assert answer["token"] > token
    assert kinds(await look(client, ["network"], answer["token"])) == []


async def test_a_token_that_is_none_is_refused(client: Client) -> None:
    for token in ("x", "1", "1,2,3", "1,x", "1;2"):
        assert await client.refusal("event.from", ["*"], token, 0.0) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", token]


async def test_changes_of_one_object_are_one_event_with_its_latest_state(pool: Pool, client: Client) -> None:
    await pool.write(network("old"))
    token = (await look(client, ["network"]))["token"]
    for name in ("a", "b", "c"):
        await pool.write(rename("old", name))
    await pool.write(network("new"))
    await pool.write(rename("new", "d"))
    answer = await look(client, ["network"], token)
    assert kinds(answer) == [("network", "add", "new"), ("network", "mod", "old")]
    assert [event["snapshot"]["name_label"] for event in answer["events"]] == ["d", "c"]


async def test_deletions_are_told_without_snapshot_and_what_came_and_went_is_not(pool: Pool, client: Client) -> None:
    await pool.write(network("old"))
    token = (await look(client, ["network"]))["token"]
    await pool.write(network("brief"))
    await pool.write(Delete(cls="network", ref="brief"), Delete(cls="network", ref="old"))
    answer = await look(client, ["network"], token)
    assert kinds(answer) == [("network", "del", "old")]
    assert "snapshot" not in answer["events"][0]


async def test_one_that_is_deleted_and_made_again_is_added(pool: Pool, client: Client) -> None:
    await pool.write(network("n"))
    token = (await look(client, ["network"]))["token"]
    await pool.write(Delete(cls="network", ref="n"))
    await pool.write(network("n"))
    assert kinds(await look(client, ["network"], token)) == [("network", "add", "n")]


async def test_order_is_messages_then_add_then_mod_then_del(pool: Pool, client: Client) -> None:
    await pool.write(network("m"), network("d"))
    token = (await look(client, ["*"]))["token"]
    await pool.write(Delete(cls="network", ref="d"))
    await pool.write(rename("m", "x"))
    await pool.write(network("a"))
    uuid = pool.row("pool", next(iter(pool.store.rows("pool"))))["uuid"]
    message = await client.call("message.create", "M", 5, "Pool", uuid, "")
    told = [item for item in kinds(await look(client, ["*"], token)) if item[0] in ("network", "message")]
    assert told == [
        ("message", "add", message),
        ("network", "add", "a"),
        ("network", "mod", "m"),
        ("network", "del", "d"),
    ]


async def test_subscriptions_choose_classes_and_objects_in_any_case(pool: Pool, client: Client) -> None:
    await pool.write(network("n1"), network("n2"))
    vms = set(pool.store.rows("VM"))
    assert {ref for _, _, ref in kinds(await look(client, ["vm"]))} == vms
    assert {ref for _, _, ref in kinds(await look(client, ["VM"]))} == vms
    assert kinds(await look(client, ["network/n1"])) == [("network", "add", "n1")]
    assert kinds(await look(client, ["Network/n1", "network/n2"])) == [
        ("network", "add", "n1"),
        ("network", "add", "n2"),
    ]
    assert kinds(await look(client, ["network/N1"])) == []
    assert kinds(await look(client, ["frob", "frob/x", ""])) == []


async def test_it_waits_for_what_is_subscribed_and_for_nothing_else(pool: Pool, client: Client) -> None:
    await pool.write(network("n"))
    token = (await look(client, ["network/n"]))["token"]
    waiting = client.begin("event.from", ["network/n"], token, 30.0)
    await asyncio.sleep(0)
    await pool.write(network("other"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert pool.api.hub.waiting == 1
    await pool.write(rename("n", "x"))
    assert kinds(await waiting) == [("network", "mod", "n")]
    assert pool.api.hub.waiting == 0


async def test_a_timeout_answers_nothing_and_a_token_that_works(pool: Pool, client: Client) -> None:
    token = (await look(client, ["network"]))["token"]
    began = time.monotonic()
    answer = await look(client, ["network"], token, 0.05)
    assert time.monotonic() - began >= 0.045
    assert answer["events"] == []
    await pool.write(network("n"))
    assert kinds(await look(client, ["network"], answer["token"])) == [("network", "add", "n")]


async def test_valid_ref_counts_are_of_all_tables(pool: Pool, client: Client) -> None:
    counts = (await look(client, ["task"]))["valid_ref_counts"]
    assert counts["vm"] == len(pool.store.rows("VM"))
    assert counts["host"] == 2
    assert {type(count) for count in counts.values()} == {int}


async def test_the_end_of_a_session_wakes_whoever_waits_in_it(pool: Pool, client: Client) -> None:
    session = client.session
    token = (await look(client, ["network"]))["token"]
    waiting = [client.begin("event.from", ["network"], token, 30.0) for _ in range(3)]
    await client.call("event.register", ["network"])
    waiting.append(client.begin("event.next"))
    await asyncio.sleep(0)
    await client.call("session.logout")
    for one in waiting:
        assert await error_of(one) == ["SESSION_INVALID", session]
    assert pool.api.hub.waiting == 0


async def test_a_client_that_goes_away_is_forgotten(pool: Pool, client: Client) -> None:
    token = (await look(client, ["network"]))["token"]
    waiting = client.begin("event.from", ["network"], token, 30.0)
    await asyncio.sleep(0)
    assert pool.api.hub.waiting == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert pool.api.hub.waiting == 0


async def test_inject_tells_when_everything_before_has_been_seen(pool: Pool, client: Client) -> None:
    """The idiom: inject, then read events until the token has passed the injected one."""
    ref = next(iter(pool.store.rows("pool")))
    token = (await look(client, ["*"]))["token"]
    await pool.write(network("n"))
    injected = await client.call("event.inject", "pool", ref)
    answer = await look(client, ["*"], token, 5.0)
    assert answer["token"] >= injected
    assert ("pool", "mod", ref) in kinds(answer)
    assert ("network", "add", "n") in kinds(answer)
    assert ("pool", "mod", ref) in kinds(await look(client, ["pool"], injected))
    assert await client.refusal("event.inject", "pool", "x") == ["HANDLE_INVALID", "pool", "x"]
    assert await client.refusal("event.inject", "vm", ref) == ["HANDLE_INVALID", "vm", ref]


async def test_a_change_of_a_relation_is_an_event_on_both_sides(pool: Pool, client: Client) -> None:
    vm, net = await pool.vm(client), pool.ref("network", "network")
    await pool.settled()
    token = (await look(client, ["*"]))["token"]
    vif = await client.call("VIF.create", records.vif(vm, net))
    told = kinds(await look(client, ["vif", "vm", "network"], token))
    assert set(told) == {("vif", "add", vif), ("vm", "mod", vm), ("network", "mod", net)}


async def test_writing_what_is_already_so_is_no_event(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await pool.settled()
    token = (await look(client, ["vm"]))["token"]
    await client.call("VM.set_name_label", vm, "vm")
    assert kinds(await look(client, ["vm"], token)) == []


async def test_a_task_can_be_followed_to_its_end(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    task = await client.call("Async.VM.start", vm, False, False)
    token, status = "", "pending"
    while status == "pending":
        answer = await look(client, [f"task/{task}"], token, 10.0)
        token = answer["token"]
        for event in answer["events"]:
            status = event["snapshot"]["status"]
    assert status == "success"


async def test_a_client_that_follows_with_tokens_ends_with_the_same_rows(pool: Pool, client: Client) -> None:
    """Whatever happens between the calls: its copy is the pool's."""
    copy: dict[str, Any] = {}
    token = ""

    async def follow() -> None:
        nonlocal token
        answer = await look(client, ["network"], token)
        token = answer["token"]
        for event in answer["events"]:
            if event["operation"] == "del":
                copy.pop(event["ref"], None)
            else:
                copy[event["ref"]] = event["snapshot"]
        assert len(copy) == answer["valid_ref_counts"]["network"]

    for step in range(60):
        ref = f"n{step % 7}"
        change: list[Change] = [network(ref), rename(ref, f"r{step}"), Delete(cls="network", ref=ref)]
        there = pool.row("network", ref) is not None
        await pool.write(change[1 + step % 2] if there else change[0])
        if step % 4 == 3:
            await follow()
        if step == 30:
            pool.api.replica.resync("test")
            await pool.until(lambda: pool.api.replica.ready)
    await follow()
    assert copy == await client.call("network.get_all_records")


async def test_after_a_new_snapshot_of_the_rows_nothing_is_told_twice_or_missed(pool: Pool, client: Client) -> None:
    await pool.write(network("gone"), network("changed"), network("same"))
    token = (await look(client, ["network"]))["token"]
    waiting = client.begin("event.from", ["network"], token, 30.0)
    await asyncio.sleep(0)
    resyncs = pool.api.replica.resyncs
    pool.api.replica.resync("test")
    await pool.write(Delete(cls="network", ref="gone"), rename("changed", "x"), network("new"))
    assert kinds(await waiting) == [
        ("network", "add", "new"),
        ("network", "mod", "changed"),
        ("network", "del", "gone"),
    ]
    assert pool.api.replica.resyncs > resyncs


async def test_deletions_from_before_a_new_snapshot_are_still_told_after_it(pool: Pool, client: Client) -> None:
    await pool.write(network("gone"))
    token = (await look(client, ["network"]))["token"]
    await pool.write(Delete(cls="network", ref="gone"))
    resyncs = pool.api.replica.resyncs
    pool.api.replica.resync("test")
    await pool.write(network("n"))
    await asyncio.sleep(0.01)
    assert pool.api.replica.resyncs > resyncs
    assert set(kinds(await look(client, ["network"], token))) == {("network", "add", "n"), ("network", "del", "gone")}


# ---- register, next


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


async def test_a_slow_client_of_next_hears_that_events_were_lost(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_queue, "QUEUE", 2000)
    await client.call("event.register", ["network"])
    for number in range(7):
        await pool.write(network(f"n{number}"))
    assert await client.refusal("event.next") == ["EVENTS_LOST"]
    await pool.write(network("after"))
    assert "after" in [event["ref"] for event in await client.call("event.next")]
