"""Fixtures: the bus in memory and over RabbitMQ."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.bus.contract import Contract
from tests.bus.wire import AmqpWire, MemoryWire, Wire


@pytest.fixture(params=["memory", pytest.param("amqp", marks=pytest.mark.broker)])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    made: Wire = MemoryWire() if request.param == "memory" else AmqpWire(request.getfixturevalue("broker_url"))
    others = asyncio.all_tasks()
    try:
        yield made
    finally:
        await made.close()
    assert [task for task in asyncio.all_tasks() - others if task.get_name().startswith(("bus", "events"))] == []


@pytest.fixture
def contract() -> Contract:
    """Of a service that no other test knows."""
    return Contract(f"test-{uuid.uuid4().hex[:12]}")
