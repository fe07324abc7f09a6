"""Fixtures of the database's tests."""

from __future__ import annotations

import pytest

from tests.db.redo.backends import BACKENDS, Backend, on_broker

PARAMS = [pytest.param(each, marks=pytest.mark.broker) if each.elsewhere else each for each in BACKENDS]


@pytest.fixture(params=PARAMS, ids=str)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each of the redo logs; one that lives on a broker has one."""
    found: Backend = request.param
    if found.elsewhere:
        on_broker(request.getfixturevalue("broker_url"))
    return found
