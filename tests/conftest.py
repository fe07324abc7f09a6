"""Fixtures of the whole suite live in `tests/support`, one module for each thing a test may need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

pytest_plugins = ["tests.support.accounts", "tests.support.broker", "tests.support.pool"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the services run on: its transports are not asyncio's."""
    return {"uvloop": uvloop.new_event_loop}
