"""The example for users runs as it stands in `docs/examples`."""

# mypy: allow-untyped-calls
# (kombu's functions have no annotations)

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from kombu.connection import Connection

from shared.bus.interface import Bus
from tests.alerts.conftest import alert, publish

QUEUE = "alert-printer alert.VM.#"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "alert_consumer.py"


def remove_queue(url: str) -> None:
    with Connection(url) as connection, connection.channel() as channel:
        channel.queue_delete(QUEUE)


def queue_exists(url: str) -> bool:
    with Connection(url) as connection, connection.channel() as channel:
        try:
            return bool(channel.queue_declare(QUEUE, passive=True).consumer_count)
        except connection.channel_errors:
            return False


@pytest.mark.broker
async def test_the_example_consumer_prints_alerts(bus: Bus, broker_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        "alert.VM.#",
        env={**os.environ, "AMQP_URL": broker_url},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(queue_exists, broker_url):
                assert process.returncode is None
            await publish(bus, alert("HA_HOST_FAILED", 3, cls="Host"), alert("VM_STARTED", 5, body="it runs"))
            assert process.stdout is not None
            line = await process.stdout.readline()
        assert line.decode() == "[5] VM_STARTED VM vm-uuid: it runs\n"
    finally:
        process.kill()
        await process.wait()
        await asyncio.to_thread(remove_queue, broker_url)


def test_the_example_is_about_thirty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 36
