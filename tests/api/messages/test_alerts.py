"""Class message: alerts as clients see them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.api import clock
from services.api.operations import message
from shared.contracts.db import Create
from tests.api.harness import Client, Pool

FIELDS = ["uuid", "name", "priority", "cls", "obj_uuid", "timestamp", "body"]


def row(ref: str, at: float, **fields: Any) -> Create:
    common = {"name": ref, "priority": 3, "cls": "Pool", "obj_uuid": "p", "timestamp": clock.stamp(at), "body": ""}
    return Create(cls="message", ref=ref, fields={**common, **fields})


async def write(pool: Pool, *times: int, **fields: Any) -> list[str]:
    refs = [f"m{at}" for at in times]
    await pool.write(*(row(ref, at, **fields) for ref, at in zip(refs, times, strict=True)))
    return refs


async def test_a_message_is_about_an_object_that_is_there(pool: Pool, client: Client) -> None:
    [uuid] = [row["uuid"] for row in pool.store.rows("pool").values()]
    made = await client.call("message.create", "N", 5, "pool", uuid, "<b>&ü")
    record = await client.call("message.get_record", made)
    assert list(record) == FIELDS
    told = {name: record[name] for name in ("name", "priority", "cls", "obj_uuid", "body")}
    assert told == {"name": "N", "priority": 5, "cls": "Pool", "obj_uuid": uuid, "body": "<b>&ü"}
    assert await client.call("message.get_by_uuid", record["uuid"]) == made
    assert await client.refusal("message.create", "N", 5, "VM", uuid, "") == ["UUID_INVALID", "VM", uuid]
    assert (await client.refusal("message.create", "N", 5, "frob", uuid, ""))[0] == "INTERNAL_ERROR"


async def test_get_tells_of_one_object_what_is_later(pool: Pool, client: Client) -> None:
    [uuid] = [row["uuid"] for row in pool.store.rows("pool").values()]
    await write(pool, 1000, 2000, 3000, obj_uuid=uuid)
    await write(pool, 4000, obj_uuid="another")
    for since in (clock.stamp(1500), "1970-01-01T01:25:00+01:00"):
        assert set(await client.call("message.get", "Pool", uuid, since)) == {"m2000", "m3000"}
    assert await client.call("message.get", "Pool", uuid, clock.stamp(9999)) == {}
    assert await client.refusal("message.get", "Pool", "unknown", clock.EPOCH) == ["UUID_INVALID"]


async def test_get_since_tells_of_all_from_that_second_on(pool: Pool, client: Client) -> None:
    await write(pool, 1000, 2000, 3000)
    assert set(await client.call("message.get_since", clock.stamp(2000))) == {"m2000", "m3000"}
    assert set(await client.call("message.get_since", "1970-01-01T01:33:20+01:00")) == {"m2000", "m3000"}
    assert await client.call("message.get_since", clock.stamp(3001)) == {}


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ('field "priority"="3"', {"m1000", "m2000"}),
        ('field "name"="m2000"', {"m2000"}),
        ('field "cls"="Pool" and field "obj_uuid"="p"', {"m1000", "m2000"}),
        ('field "timestamp"="19700101T00:16:40Z"', {"m1000"}),
        ('field "body"="x"', set()),
        ("true", {"m1000", "m2000"}),
    ],
)
async def test_messages_are_chosen_by_their_fields(
    pool: Pool, client: Client, expression: str, chosen: set[str]
) -> None:
    await write(pool, 1000, 2000)
    assert set(await client.call("message.get_all_records_where", expression)) == chosen


async def test_other_fields_are_unknown(pool: Pool, client: Client) -> None:
    await write(pool, 1000)
    assert (await client.refusal("message.get_all_records_where", 'field "nothing"="x"'))[0] == "INTERNAL_ERROR"
    assert (await client.refusal("message.get_all_records_where", "="))[0] == "INVALID_VALUE"


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, set()),
        ({"priority": "3"}, {"m3000", "m4000"}),
        ({"before": "19700101T00:33:20Z"}, {"m2000", "m3000", "m4000"}),
        ({"after": "1970-01-01T00:33:20Z"}, {"m1000", "m2000"}),
        ({"after": "19700101T01:00:00Z", "priority": "5"}, {"m1000", "m2000", "m3000"}),
        ({"before": "19700101T00:40:00Z", "after": "19700101T00:30:00Z"}, {"m1000", "m3000", "m4000"}),
    ],
)
async def test_destroy_all_takes_what_passes_all_filters(
    pool: Pool, client: Client, filters: dict[str, str], left: set[str]
) -> None:
    await write(pool, 1000, 2000, priority=3)
    await write(pool, 3000, 4000, priority=5)
    await client.call("message.destroy_all", filters)
    assert set(pool.store.rows("message")) == left


@pytest.mark.parametrize("filters", [{"cls": "VM"}, {"priority": "x"}, {"before": "yesterday"}, {"after": ""}])
async def test_other_filters_are_refused_and_nothing_goes(pool: Pool, client: Client, filters: dict[str, str]) -> None:
    await write(pool, 1000)
    assert (await client.refusal("message.destroy_all", filters))[0] == "INVALID_VALUE"
    assert set(pool.store.rows("message")) == {"m1000"}


async def test_destroy_many_takes_all_or_none(pool: Pool, client: Client) -> None:
    await write(pool, 1000, 2000, 3000)
    assert await client.refusal("message.destroy_many", ["m1000", "x"]) == ["HANDLE_INVALID", "message", "x"]
    assert len(pool.store.rows("message")) == 3
    await client.call("message.destroy_many", ["m1000", "m3000"])
    assert set(pool.store.rows("message")) == {"m2000"}
    await client.call("message.destroy_many", [])
    task = await client.call("Async.message.destroy_many", ["m2000"])
    await pool.until(lambda: pool.row("task", task)["status"] == "success")
    assert not pool.store.rows("message")


async def test_of_more_than_ten_thousand_the_oldest_go(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message.LIMIT == 10_000
    monkeypatch.setattr(message, "LIMIT", 3)
    assert message.surplus(pool.store) == []
    now = int(time.time())
    await write(pool, now, now - 9, now - 5, now - 7)
    await pool.write(row("first", now - 5))
    assert message.surplus(pool.store) == [f"m{now - 9}", f"m{now - 7}"]
    await pool.write(row("second", now - 5))
    assert message.surplus(pool.store) == [f"m{now - 9}", f"m{now - 7}", f"m{now - 5}"]
