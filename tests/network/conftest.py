from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.network.links import Links
from tests.network.support import is_root, new_namespace


@pytest.fixture
async def links() -> AsyncIterator[Links]:
    """The devices of a namespace that only this test sees."""
    if not is_root():
        pytest.skip("needs root: makes a network namespace")
    made = Links(enter=new_namespace)
    yield made
    await made.close()
