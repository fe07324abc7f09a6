from __future__ import annotations

import pytest

from tests.cli.fake_xenapi import FakeXenApi, small_pool
from tests.cli.thin_client import ThinClient


@pytest.fixture
def api() -> FakeXenApi:
    return small_pool()


@pytest.fixture
def xe(api: FakeXenApi) -> ThinClient:
    return ThinClient(api)
