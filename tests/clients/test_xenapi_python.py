"""The `XenAPI` module from PyPI watches a pool, in the two ways that programs written with it do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import client
from tests.support.pool import PoolUnderTest

pytestmark = pytest.mark.pool
PATIENCE = 20.0


@pytest.fixture
def session(simulator_pool: PoolUnderTest) -> Iterator[Any]:
    with client.logged_in(simulator_pool) as session:
        yield session


@pytest.fixture
def watcher(simulator_pool: PoolUnderTest) -> Iterator[Any]:
    """A session of its own: the other one is busy with the changes."""
    with client.logged_in(simulator_pool) as session:
        yield session


def test_a_cache_kept_by_event_from_follows_a_network_from_its_creation_to_its_end(session: Any, watcher: Any) -> None:
    batch = watcher.xenapi.event_from(["network"], "", 0.0)
    cache = {event["ref"]: event["snapshot"] for event in batch["events"]}
    assert set(cache) == set(session.xenapi.network.get_all())
    assert {event["operation"] for event in batch["events"]} == {"add"}
    assert batch["valid_ref_counts"]["network"] == len(cache)

    operations = []
    ref = session.xenapi.network.create({"name_label": "watched", "name_description": "", "other_config": {}})
    for change in (
        lambda: None,
        lambda: session.xenapi.network.set_name_label(ref, "renamed"),
        lambda: session.xenapi.network.destroy(ref),
    ):
        change()
        batch = watcher.xenapi.event_from(["network"], batch["token"], PATIENCE)
        for event in batch["events"]:
            operations.append((event["operation"], event["class"], event["ref"], event["id"].isdigit()))
            if event["operation"] == "del":
                del cache[event["ref"]]
            else:
                cache[event["ref"]] = event["snapshot"]
        assert cache == session.xenapi.network.get_all_records()
    assert operations == [(operation, "network", ref, True) for operation in ("add", "mod", "del")]


def test_a_program_that_registers_gets_the_next_events(session: Any, watcher: Any) -> None:
    watcher.xenapi.event.register(["secret", "network"])
    try:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(watcher.xenapi.event.next)
            ref = session.xenapi.network.create({"name_label": "old style", "name_description": "", "other_config": {}})
            try:
                (event, *_) = waiting.result(PATIENCE)
            finally:
                session.xenapi.network.destroy(ref)
        assert (event["class"], event["operation"], event["ref"]) == ("network", "add", ref)
        assert event["snapshot"]["name_label"] == "old style"
    finally:
        watcher.xenapi.event.unregister(["secret", "network"])


def test_waiting_for_nothing_ends_with_a_token_to_go_on_with(session: Any) -> None:
    batch = session.xenapi.event_from(["VM_appliance"], "", 0.2)
    assert batch["events"] == []
    assert session.xenapi.event_from(["VM_appliance"], batch["token"], 0.2)["events"] == []
