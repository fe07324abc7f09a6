"""Fixtures: a RabbitMQ node for the tests that need a real broker.

AMQP_URL names a broker to use. Otherwise a private node is started, once for the session, in a temporary folder.
Tests that share it keep apart by the names of their services and hosts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool import rabbitmq


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a broker that all tests of the session share: never stop it."""
    given = os.environ.get("AMQP_URL", "")
    if given:
        yield given
        return
    node = rabbitmq.start(tmp_path_factory.mktemp("broker"))
    try:
        yield node.url
    finally:
        rabbitmq.stop(node)


@pytest.fixture
def broker_node(tmp_path: Path) -> Iterator[rabbitmq.Node]:
    """A node of the test's own, which it may kill and start again (`rabbitmq.start(node.directory)`)."""
    node = rabbitmq.start(tmp_path / "broker")
    try:
        yield node
    finally:
        current = rabbitmq.read(node.directory)
        if current is not None:
            rabbitmq.stop(current)
