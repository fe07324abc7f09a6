"""Fixtures: the bus in memory and over RabbitMQ."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from tests.bus.contract import Contract
from tests.bus.wire import AmqpWire, MemoryWire, Wire


@pytest.fixture(params=["memory", pytest.param("amqp", marks=pytest.mark.broker)])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    made: Wire = MemoryWire() if request.param == "memory" else AmqpWire(request.getfixturevalue("broker_url"))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def contract() -> Contract:
    """Of a service that no other test knows."""
    return Contract(f"test-{uuid.uuid4().hex[:12]}")
