"""Fixtures of the whole suite live in `tests/support`, one module for each thing a test may need."""

import asyncio

import pytest
import uvloop

pytest_plugins = ["tests.support.broker", "tests.support.pool"]


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """Tests run on the loop that the services run on: its transports are not asyncio's."""
    return uvloop.EventLoopPolicy()
