"""The alerts service on a real broker: stored, delivered, never lost, nobody held up."""

# mypy: allow-untyped-calls
# (kombu's functions have no annotations)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.messaging import Producer

from shared.bus import amqp_consumers
from shared.bus.interface import Bus
from shared.errors import ApiError
from tests.alerts.conftest import Alerts, Database, Hook, alert, consumers, eventually, metrics, publish, webhook

pytestmark = pytest.mark.broker

DeadLetters = Callable[[], list[tuple[dict[str, Any], bytes]]]


async def test_an_alert_becomes_a_message_of_the_api(bus: Bus, database: Database, alerts: Alerts) -> None:
    await alerts.start()
    one = alert("HA_HOST_FAILED", 3, cls="Host", obj_uuid="host-uuid", body="Server 'a' has failed")
    await publish(bus, one)
    await database.stored(1)
    assert database.rows == {
        f"OpaqueRef:{one.id}": {
            "uuid": one.id,
            "name": "HA_HOST_FAILED",
            "priority": 3,
            "cls": "Host",
            "obj_uuid": "host-uuid",
            "timestamp": "20231114T22:13:20Z",
            "body": "Server 'a' has failed",
        }
    }


async def test_the_same_alert_twice_is_one_message(bus: Bus, database: Database, alerts: Alerts) -> None:
    await alerts.start()
    one, two = alert(), alert()
    await publish(bus, one, one, two)
    rows = await database.stored(2)
    assert [row["uuid"] for row in rows] == [one.id, two.id]
    assert database.requests == 3


async def test_a_webhook_gets_the_alert_as_documented(bus: Bus, database: Database, hook: Hook, alerts: Alerts) -> None:
    await alerts.start(webhook(hook, headers={"Authorization": "Bearer x"}))
    one = alert(body="it's “up”")
    await publish(bus, one)
    request = await hook.next()
    headers = request.pop("headers")
    assert request == {
        "path": "/hook?x=1",
        "format": 1,
        "pool": "pool-uuid",
        "id": one.id,
        "name": "VM_STARTED",
        "priority": 5,
        "cls": "VM",
        "obj_uuid": "vm-uuid",
        "body": "it's “up”",
        "time": 1700000000.5,
        "timestamp": "2023-11-14T22:13:20Z",
    }
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == one.id
    assert headers["Authorization"] == "Bearer x"


async def test_alerts_arrive_in_order(bus: Bus, database: Database, hook: Hook, alerts: Alerts) -> None:
    await alerts.start(webhook(hook))
    sent = [alert() for _ in range(20)]
    await publish(bus, *sent)
    assert [(await hook.next())["id"] for _ in sent] == [one.id for one in sent]
    assert [row["uuid"] for row in await database.stored(len(sent))] == [one.id for one in sent]


async def test_alerts_keep_their_order_when_the_first_has_to_wait(
    bus: Bus, database: Database, hook: Hook, alerts: Alerts
) -> None:
    hook.answer = lambda number: 503 if number <= 2 else 204
    await alerts.start(webhook(hook))
    first, second = alert(), alert()
    await publish(bus, first, second)
    assert [(await hook.next())["id"] for _ in range(4)] == [first.id] * 3 + [second.id]


async def test_a_consumer_gets_only_what_is_urgent_enough(
    bus: Bus, database: Database, hook: Hook, alerts: Alerts
) -> None:
    await alerts.start(webhook(hook, "urgent", min_priority=3))
    await publish(bus, alert("A", 4), alert("B", 3), alert("C", 5), alert("D", 1))
    assert [(await hook.next())["name"] for _ in range(2)] == ["B", "D"]
    await database.stored(4)


async def test_a_webhook_that_was_down_gets_its_alerts_when_it_is_up(
    bus: Bus, database: Database, hook: Hook, alerts: Alerts
) -> None:
    url = hook.url
    await asyncio.to_thread(hook.close)
    await alerts.start(webhook(url, attempts=1000))
    one = alert()
    await publish(bus, one)

    async def failing() -> bool:
        return (await consumers(bus))["hook"].failed >= 2

    await eventually(failing)
    assert (await consumers(bus))["hook"].state.startswith("failing: ConnectionRefusedError")
    back = Hook(asyncio.get_running_loop(), port=int(url.split(":")[2].split("/")[0]))
    try:
        assert (await back.next())["id"] == one.id

        async def delivered() -> bool:
            return (await consumers(bus))["hook"].delivered == 1

        await eventually(delivered)
        assert (await consumers(bus))["hook"].state == "ok"
    finally:
        await asyncio.to_thread(back.close)


async def test_a_slow_consumer_holds_up_nobody(bus: Bus, database: Database, hook: Hook, alerts: Alerts) -> None:
    slow = Hook(asyncio.get_running_loop())
    slow.hold.clear()
    try:
        await alerts.start(webhook(slow, "slow"), webhook(hook))
        sent = [alert() for _ in range(5)]
        await publish(bus, *sent)
        assert [(await hook.next())["id"] for _ in sent] == [one.id for one in sent]
        await database.stored(5)
        assert (await consumers(bus))["slow"].delivered == 0
    finally:
        await asyncio.to_thread(slow.close)


async def test_an_attempt_ends_at_its_timeout_even_if_the_answer_trickles(
    bus: Bus, database: Database, alerts: Alerts
) -> None:
    attempts = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200")
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            attempts.set()
            writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await alerts.start(webhook(f"http://127.0.0.1:{port}/", timeout=0.3))
        await publish(bus, alert())
        await asyncio.wait_for(attempts.wait(), 10)

        async def failed() -> bool:
            return (await consumers(bus))["hook"].failed >= 1

        await eventually(failed)
        assert (await consumers(bus))["hook"].state == "failing: no answer within 0.3 seconds"
        await alerts.stop()


async def test_an_alert_that_nobody_takes_ends_in_the_dead_queue_and_the_next_is_tried(
    bus: Bus, database: Database, hook: Hook, alerts: Alerts, dead_letters: DeadLetters
) -> None:
    hook.answer = lambda number: 500 if number <= 3 else 200
    await alerts.start(webhook(hook, attempts=3))
    lost, fine = alert(), alert()
    await publish(bus, lost, fine)
    assert [(await hook.next())["id"] for _ in range(4)] == [lost.id] * 3 + [fine.id]
    ((headers, body),) = dead_letters()
    assert headers["reason"] == "3 attempts failed, the last one: it answered with status 500"
    assert headers["source"] == f"{alerts.prefix}.webhook.hook"
    assert lost.id in body.decode()

    async def counted() -> bool:
        return 'alerts_delivered_total{consumer="hook"} 1.0' in await metrics(bus)

    await eventually(counted)
    text = await metrics(bus)
    assert 'alerts_dead_total{consumer="hook"} 1.0' in text
    assert 'alerts_failed_attempts_total{consumer="hook"} 3.0' in text
    assert 'alerts_delivered_total{consumer="messages"} 2.0' in text


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        ({"cls": "Teapot"}, "no messages about objects of class 'Teapot'"),
        ({"time": 1e300}, "its time 1e+300 is none"),
    ],
)
async def test_an_alert_that_cannot_be_a_message_does_not_hold_up_the_next(
    spoiled: dict[str, Any], reason: str, bus: Bus, database: Database, alerts: Alerts, dead_letters: DeadLetters
) -> None:
    await alerts.start()
    fine = alert()
    await publish(bus, alert(**spoiled), fine)
    assert [row["uuid"] for row in await database.stored(1)] == [fine.id]
    ((headers, _),) = dead_letters()
    assert reason in headers["reason"]


async def test_what_is_no_alert_at_all_is_set_aside(
    bus: Bus, database: Database, alerts: Alerts, dead_letters: DeadLetters
) -> None:
    await alerts.start()

    def send_junk() -> None:
        with Connection(alerts.url) as connection, connection.channel() as channel:
            exchange = Exchange(amqp_consumers.EVENTS, "topic", durable=True)
            producer = Producer(channel, exchange)
            producer.publish("junk", routing_key="alert.VM.5.X", content_type="text/plain", content_encoding="utf-8")
            producer.publish({"v": 1, "kind": "event", "body": {"id": 1}}, routing_key="alert.VM.5.X")

    await asyncio.to_thread(send_junk)
    await publish(bus, alert())
    await database.stored(1)
    assert [headers["reason"].split(":")[0] for headers, _ in dead_letters()] == ["not an alert"] * 2


async def test_a_database_that_is_away_is_waited_for(bus: Bus, database: Database, alerts: Alerts) -> None:
    await bus.stop_consuming("db")
    await alerts.start()
    one = alert()
    await publish(bus, one)
    await asyncio.sleep(0.3)  # the transaction is waiting for a database by now; storing works either way
    await bus.start_consuming("db")
    assert [row["uuid"] for row in await database.stored(1)] == [one.id]


async def test_a_database_that_refuses_for_a_while_gets_the_alert_later(
    bus: Bus, database: Database, alerts: Alerts
) -> None:
    database.refuse = ApiError("INTERNAL_ERROR", "no space left on device")
    await alerts.start()
    one = alert()
    await publish(bus, one)

    async def refused() -> bool:
        return (await consumers(bus))["messages"].failed >= 2

    await eventually(refused)
    database.refuse = None
    assert [row["uuid"] for row in await database.stored(1)] == [one.id]


async def test_alerts_that_come_while_the_service_is_down_wait_for_it(
    bus: Bus, database: Database, hook: Hook, alerts: Alerts
) -> None:
    await alerts.start(webhook(hook))
    await alerts.stop()
    sent = [alert(), alert()]
    await publish(bus, *sent)
    await alerts.start(webhook(hook))
    assert [(await hook.next())["id"] for _ in sent] == [one.id for one in sent]
    assert len(await database.stored(2)) == 2


async def test_kill_9_between_receiving_and_acknowledging_loses_nothing(
    bus: Bus, database: Database, hook: Hook, alerts: Alerts
) -> None:
    hook.hold.clear()
    database.hold = asyncio.Event()
    await alerts.spawn(webhook(hook))

    async def ready() -> bool:
        try:
            return all(consumer.state == "ok" for consumer in (await consumers(bus)).values())
        except ApiError:
            return False

    await eventually(ready)
    one, two = alert(), alert()
    await publish(bus, one, two)
    assert (await hook.next())["id"] == one.id
    await asyncio.wait_for(database.asked.wait(), 10)
    await alerts.kill()
    hook.hold.set()
    database.hold.set()
    await alerts.spawn(webhook(hook))
    assert [(await hook.next())["id"] for _ in range(2)] == [one.id, two.id]
    assert {row["uuid"] for row in await database.stored(2)} == {one.id, two.id}


async def test_stopping_while_a_webhook_does_not_answer_keeps_its_alert(
    bus: Bus, database: Database, hook: Hook, alerts: Alerts
) -> None:
    hook.answer = lambda number: 503
    await alerts.start(webhook(hook, retry_first=30.0, retry_longest=30.0))
    one = alert()
    await publish(bus, one)
    await hook.next()
    async with asyncio.timeout(4):
        await alerts.stop()
    hook.answer = lambda number: 200
    await alerts.start(webhook(hook))
    assert (await hook.next())["id"] == one.id


async def test_the_method_tells_who_gets_alerts(bus: Bus, database: Database, hook: Hook, alerts: Alerts) -> None:
    await alerts.start(webhook(hook))
    await publish(bus, alert())
    await hook.next()
    await database.stored(1)

    async def both() -> bool:
        return all(consumer.delivered == 1 for consumer in (await consumers(bus)).values())

    await eventually(both)
    found = await consumers(bus)
    assert {name: (one.kind, one.state) for name, one in found.items()} == {
        "messages": ("xenapi", "ok"),
        "hook": ("webhook", "ok"),
    }
