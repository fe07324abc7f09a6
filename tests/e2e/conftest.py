"""Pools for end-to-end tests, and sessions on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import client
from tests.support.pool import PoolUnderTest


@pytest.fixture(
    params=["simulator", pytest.param("qemu", marks=[pytest.mark.qemu, pytest.mark.timeout(400)])], scope="module"
)
def pool(request: pytest.FixtureRequest) -> PoolUnderTest:
    """What a test says with it is true on both."""
    found: PoolUnderTest = request.getfixturevalue(f"{request.param}_pool")
    return found


@pytest.fixture
def session(pool: PoolUnderTest) -> Iterator[Any]:
    with client.logged_in(pool) as session:
        yield session
