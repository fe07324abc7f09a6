"""event.from: what clients hear of changes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from services.api.events import encoding, rounds
from services.api.events.tokens import Token
from services.api.wire import xmlrpc
from services.api.wire.jsonrpc import JSON
from services.api.wire.xmlrpc import XML
from services.db.standby.rows import Rows
from shared.contracts.db import Change, Changes, Delete
from tests.api.core import records
from tests.api.events.looking import kinds, look
from tests.api.events.rows import network, rename
from tests.api.harness import Client, Pool, error_of

LONG_GAP = 5.0
"""Seconds, so that a busy machine is no gap."""


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


@pytest.mark.parametrize("known", [True, False], ids=["resumed", "snapshot"])
async def test_after_commits_were_missed_nothing_is_told_twice_or_missed(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if not known:
        forget_commits(monkeypatch)
    await pool.write(network("gone"), network("changed"), network("same"))
    token = (await look(client, ["network"]))["token"]
    waiting = client.begin("event.from", ["network"], token, 30.0)
    await asyncio.sleep(0)
    replica = pool.api.replica
    resyncs, resumes = replica.resyncs, replica.resumes
    replica.resync("test")
    await pool.write(Delete(cls="network", ref="gone"), rename("changed", "x"), network("new"))
    assert kinds(await waiting) == [
        ("network", "add", "new"),
        ("network", "mod", "changed"),
        ("network", "del", "gone"),
    ]
    assert (replica.resumes > resumes, replica.resyncs > resyncs) == (known, not known)


async def test_deletions_from_before_a_new_snapshot_are_still_told_after_it(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_commits(monkeypatch)
    await pool.write(network("gone"))
    token = (await look(client, ["network"]))["token"]
    await pool.write(Delete(cls="network", ref="gone"))
    resyncs = pool.api.replica.resyncs
    pool.api.replica.resync("test")
    await pool.write(network("n"))
    await asyncio.sleep(0.01)
    assert pool.api.replica.resyncs > resyncs
    assert set(kinds(await look(client, ["network"], token))) == {("network", "add", "n"), ("network", "del", "gone")}


def forget_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database remembers none: whoever has missed any fetches all rows."""
    monkeypatch.setattr(Rows, "changes", lambda rows, _: Changes(at=rows.position))


# ---- timeouts


@pytest.mark.parametrize("timeout", [-1.0, -0.5, 1e300, 86401.0, "nan", "inf", "-inf"])
async def test_odd_timeouts_wait_for_a_day(pool: Pool, client: Client, timeout: object) -> None:
    token = (await look(client, ["network"]))["token"]
    waiting = client.begin("event.from", ["network"], token, timeout)
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await pool.write(network("n"))
    assert kinds(await waiting) == [("network", "add", "n")]


@pytest.mark.parametrize("timeout", [0, "0", "0x0", 0.0, -0.0, "1e-3"])
async def test_timeouts_are_numbers_of_any_form(client: Client, timeout: object) -> None:
    assert kinds(await client.call("event.from", ["nothing"], "", timeout)) == []


@pytest.mark.parametrize("timeout", ["x", "", True, [], None, {}])
async def test_a_timeout_that_is_no_number_is_refused(client: Client, timeout: object) -> None:
    assert (await client.refusal("event.from", ["nothing"], "", timeout))[0] == "INTERNAL_ERROR"


async def test_a_token_from_the_future_waits_until_the_pool_gets_there(pool: Pool, client: Client) -> None:
    ahead = str(Token(pool.store.generation + 2, 0))
    answer = await look(client, ["network"], ahead)
    assert (kinds(answer), answer["token"]) == ([], ahead)
    waiting = client.begin("event.from", ["network"], ahead, 30.0)
    await asyncio.sleep(0)
    await pool.write(network("n1"))
    await pool.write(network("n2"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await pool.write(network("n3"))
    assert kinds(await waiting) == [("network", "add", "n3")]


async def test_the_tokens_message_part_is_zero_for_who_does_not_subscribe_to_them(pool: Pool, client: Client) -> None:
    [uuid] = [row["uuid"] for row in pool.store.rows("pool").values()]
    await client.call("message.create", "M", 5, "Pool", uuid, "")
    with_messages = (await look(client, ["*"]))["token"]
    assert Token.parse(with_messages).messages > 0
    assert Token.parse((await look(client, ["pool"], with_messages))["token"]).messages == 0
    assert Token.parse((await look(client, ["*"], with_messages))["token"]) == Token.parse(with_messages)


async def test_what_came_and_went_while_a_call_waits_does_not_end_it(pool: Pool, client: Client) -> None:
    token = (await look(client, ["network"]))["token"]
    waiting = client.begin("event.from", ["network"], token, 30.0)
    await asyncio.sleep(0)
    await pool.write(network("brief"), Delete(cls="network", ref="brief"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert pool.api.hub.waiting == 1
    await pool.write(network("n"))
    assert kinds(await waiting) == [("network", "add", "n")]


async def test_injecting_is_only_into_rows_of_the_database_by_exact_class(pool: Pool, client: Client) -> None:
    [(pool_ref, row)] = pool.store.rows("pool").items()
    message = await client.call("message.create", "M", 5, "Pool", row["uuid"], "")
    for cls, ref in (("Pool", pool_ref), ("message", message), ("nothing", "x"), ("", ""), ("event", "x")):
        assert await client.refusal("event.inject", cls, ref) == ["HANDLE_INVALID", cls, ref]
    injected = Token.parse(await client.call("event.inject", "pool", pool_ref))
    assert injected.generation < pool.store.tables["pool"].rows[pool_ref].modified


# ---- many changes, many clients


async def test_a_change_in_a_quiet_pool_is_told_at_once(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "GAP", LONG_GAP)
    await pool.settled()
    token = (await look(client, ["network"]))["token"]
    spent = []
    for number in range(5):
        waiting = client.begin("event.from", ["network"], token, 30.0)
        await asyncio.sleep(0)
        began = time.monotonic()
        await pool.write(network(f"n{number}"))
        token = (await waiting)["token"]
        spent.append(time.monotonic() - began)
    assert min(spent) < LONG_GAP / 2


async def test_a_client_that_cannot_keep_up_gets_many_changes_at_once(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen a change a moment ago, and comes back to find the next one waiting."""
    monkeypatch.setattr(pool.api.hub.rounds, "gap", 5.0)
    token = (await look(client, ["network"]))["token"]
    await pool.write(network("n1"))
    token = (await look(client, ["network"], token))["token"]
    await pool.write(network("n2"))
    held_back = client.begin("event.from", ["network"], token, 30.0)
    impatient = client.begin("event.from", ["network"], token, 0.0)
    assert kinds(await impatient) == [("network", "add", "n2")]
    await pool.write(network("n3"))
    assert not held_back.done()
    assert kinds(await look(client, ["network"], token, 0.05)) == [("network", "add", "n2"), ("network", "add", "n3")]
    held_back.cancel()


async def test_nobody_is_held_back_for_long(pool: Pool, client: Client) -> None:
    token = (await look(client, ["network"]))["token"]
    await pool.write(network("n1"))
    began = time.monotonic()
    token = (await look(client, ["network"], token))["token"]
    await pool.write(network("n2"))
    asked = time.monotonic()
    assert kinds(await look(client, ["network"], token, 30.0)) == [("network", "add", "n2")]
    assert time.monotonic() - max(began, asked) < 10.0  # which is far from the 30 that it would wait


async def test_who_follows_tasks_is_never_held_back(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "GAP", LONG_GAP)
    task = await client.call("task.create", "t", "")
    token = (await look(client, ["task"]))["token"]
    began = time.monotonic()
    for number in range(4):
        await client.call("task.set_progress", task, number / 10 + 0.1)
        token = (await look(client, ["task"], token, 5.0))["token"]
        await client.call("task.set_progress", task, number / 10 + 0.15)
        token = (await look(client, [f"task/{task}"], token, 5.0))["token"]
    assert time.monotonic() - began < LONG_GAP


async def test_calls_with_the_same_token_get_the_same_bytes(pool: Pool, client: Client) -> None:
    await pool.settled()
    token = (await look(client, ["network"]))["token"]
    wait = pool.api.hub.wait
    waiting = [asyncio.create_task(wait(client.session, ["network"], token, 30.0, codec)) for codec in (JSON, XML) * 3]
    await asyncio.sleep(0)
    await pool.write(network("n"))
    answers = await asyncio.gather(*waiting)
    assert len({id(answer) for answer in answers}) == 2
    late = [await wait(client.session, ["network"], token, 30.0, JSON) for _ in range(2)]
    assert late[0] is late[1]
    assert late[0].whole == answers[0].whole


async def test_those_who_wait_for_the_same_with_different_tokens_get_their_own(pool: Pool, client: Client) -> None:
    now = pool.store.generation
    ours = [str(Token(now, 0)), str(Token(now - 1, 0)), str(Token(now, now))]
    subscriptions = [["network/n"], ["network/n"], ["network/n", "message"]]
    asked = zip(subscriptions, ours, strict=True)
    waiting = [client.begin("event.from", classes, token, 30.0) for classes, token in asked]
    await asyncio.sleep(0)
    await pool.write(network("n"))
    tokens = [Token.parse((await one)["token"]) for one in waiting]
    made = pool.store.tables["network"].rows["n"].created
    assert tokens == [Token(made, 0), Token(made, 0), Token(made, now)]


async def test_a_thousand_events_come_whole_in_both_codecs(pool: Pool, client: Client) -> None:
    await pool.write(*(network(f"n{number}", tags=["<&>\"'\\ü"]) for number in range(1000)))
    await pool.write(network('strange "<&>\\ ref'))
    answer = await look(client, ["network"])
    refs = await client.call("network.get_all")
    assert [event["ref"] for event in answer["events"]] == refs
    records_now = await client.call("network.get_all_records")
    assert {event["ref"]: event["snapshot"] for event in answer["events"]} == records_now
    text = (await pool.api.hub.wait(client.session, ["network"], "", 0.0, XML)).whole
    told = xmlrpc.parse_value(text.decode())
    assert [event["ref"] for event in told["events"]] == refs
    assert [event["snapshot"]["name_label"] for event in told["events"]][-1001:] == refs[-1001:]
    assert told["events"][-2]["snapshot"]["tags"] == ["<&>\"'\\ü"]
    assert told["valid_ref_counts"]["network"] == len(refs)
    assert told["token"] == answer["token"]


async def test_others_are_served_while_a_large_answer_is_made(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "SLICE", 0.0)
    await pool.write(*(network(f"n{number}") for number in range(1000)))
    large = [client.begin("event.from", ["network"], "", 0.0) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await client.call("network.get_name_label", "n1") == "n1"
    assert not any(one.done() for one in large)
    large[0].cancel()  # whoever goes away leaves the work to the others
    await pool.write(Delete(cls="network", ref="n999"), rename("n998", "later"))
    answer = await large[1]
    assert len(kinds(answer)) == len(kinds(await large[2])) >= 1000
    rest = await look(client, ["network"], answer["token"])
    assert kinds(rest) == [("network", "mod", "n998"), ("network", "del", "n999")]


# ---- the database goes away


async def test_a_database_that_is_killed_leaves_those_who_wait_waiting_and_they_miss_nothing(
    pool: Pool, client: Client
) -> None:
    await pool.write(network("gone"), network("changed"))
    token = (await look(client, ["network"]))["token"]
    waiting = [client.begin("event.from", ["network"], token, 30.0) for _ in range(3)]
    one = client.begin("event.from", ["network/gone"], token, 30.0)
    await asyncio.sleep(0)
    await pool.kill_db()
    writing = asyncio.create_task(pool.write(Delete(cls="network", ref="gone"), rename("changed", "x"), network("new")))
    await asyncio.sleep(0.05)
    assert not any(each.done() for each in (*waiting, one, writing))
    term = pool.store.term
    await pool.start_db()
    for each in waiting:
        assert kinds(await asyncio.wait_for(each, 10)) == [
            ("network", "add", "new"),
            ("network", "mod", "changed"),
            ("network", "del", "gone"),
        ]
    assert kinds(await one) == [("network", "del", "gone")]
    await writing
    assert pool.store.term > term
    assert pool.api.hub.waiting == 0


async def test_a_session_that_ended_while_the_database_was_away_wakes_its_calls(pool: Pool, client: Client) -> None:
    session = client.session
    token = (await look(client, ["network"]))["token"]
    waiting = client.begin("event.from", ["network"], token, 30.0)
    await asyncio.sleep(0)
    await pool.kill_db()
    ending = client.begin("session.logout")
    await asyncio.sleep(0.02)
    await pool.start_db()
    assert await error_of(asyncio.wait_for(waiting, 10)) == ["SESSION_INVALID", session]
    await ending
