from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.harness import Client, Pool


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    """Two hosts, brought in."""
    running = await Pool.start(tmp_path)
    yield running
    await running.stop()


@pytest.fixture
async def client(pool: Pool) -> Client:
    return await pool.login()
