"""What the readers do when RabbitMQ itself dies."""

# mypy: allow-untyped-calls
# (kombu's functions have no annotations)

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.messaging import Producer

from pool import rabbitmq
from shared.bus import amqp, amqp_consumers
from shared.bus.envelope import Event, encode
from shared.bus.interface import BusError
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.db import TRANSACT
from tests.alerts.conftest import Alerts, Database, Hook, alert, consumers, eventually, publish, webhook

pytestmark = pytest.mark.broker


def publish_durably(url: str, one: Alert) -> None:
    """Returns when the broker has it on disk."""
    with Connection(url, transport_options={"confirm_publish": True}) as connection, connection.channel() as channel:
        key = ALERT.key(cls=one.cls, priority=str(one.priority), name=one.name)
        body = encode(Event(body=one))
        producer = Producer(channel, Exchange(amqp_consumers.EVENTS, "topic", durable=True))
        producer.publish(body, routing_key=key, content_type="application/json", content_encoding="binary")


async def test_alerts_survive_a_kill_9_of_the_broker_and_readers_come_back(
    broker_node: rabbitmq.Node, tmp_path: Path, hook: Hook
) -> None:
    bus = await amqp.connect(broker_node.url)
    database = Database()
    await bus.serve(TRANSACT, database.transact)
    await bus.start_consuming("db")
    alerts = Alerts(broker_node.url, tmp_path)
    hook.answer = lambda number: 503
    try:
        await alerts.start(webhook(hook, attempts=1000))
        before, after = alert(), alert()
        await asyncio.to_thread(publish_durably, broker_node.url, before)
        await hook.next()
        await database.stored(1)
        os.kill(broker_node.pid, signal.SIGKILL)

        async def noticed() -> bool:
            return not bus.connected

        await eventually(noticed)
        await asyncio.to_thread(rabbitmq.start, broker_node.directory)
        hook.answer = lambda number: 200

        async def back() -> bool:
            try:
                return all(one.state == "ok" for one in (await consumers(bus)).values())
            except BusError:
                return False

        await eventually(back)
        await publish(bus, after)
        seen: list[str] = []
        while after.id not in seen:
            seen.append((await hook.next())["id"])
        assert before.id in seen
        assert {row["uuid"] for row in await database.stored(2)} == {before.id, after.id}
    finally:
        await alerts.clean_up()
        await bus.close()
