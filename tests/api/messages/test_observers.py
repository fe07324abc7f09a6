"""Observers: calls are traced where an observer looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared import trace
from tests.api.harness import Client, Pool

NOWHERE = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"
RECORD: dict[str, Any] = {
    "name_label": "o",
    "name_description": "",
    "hosts": [],
    "attributes": {"custom.key": "value"},
    "endpoints": ["bugtool"],
    "components": [],
    "enabled": False,
}
Names = Callable[[], list[str]]


@pytest.fixture
def spans(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What has been recorded by all services of the pool, which are one process here: the API's on its host."""
    path = tmp_path / "spans.jsonl"
    trace.exporter.open(path, "api", "host0")
    yield lambda: [orjson.loads(line) for line in path.read_bytes().splitlines()]
    trace.exporter.close()


async def observer(client: Client, **fields: Any) -> str:
    return str(await client.call("Observer.create", {**RECORD, **fields}))


async def test_calls_under_an_enabled_observer_leave_spans(pool: Pool, client: Client, spans: Any) -> None:
    ref = await observer(client)
    await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "before")
    assert spans() == []
    await client.call("Observer.set_enabled", ref, True)
    await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "during")
    [first] = [span for span in spans() if span["name"] == "VM.clone"]
    assert first["attributes"]["custom.key"] == "value"
    assert first["attributes"]["xs.observer.uuid"] == pool.row("Observer", ref)["uuid"]
    assert any(span["parent_id"] == first["span_id"] for span in spans())
    await client.call("Observer.destroy", ref)
    count = len(spans())
    await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "after")
    assert len(spans()) == count


async def test_only_the_components_that_are_observed_record(pool: Pool, client: Client, spans: Any) -> None:
    await observer(client, enabled=True, components=["xenopsd"])
    await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "vm")
    assert spans() == []


async def test_without_the_one_endpoint_nothing_is_recorded(pool: Pool, client: Client, spans: Any) -> None:
    await observer(client, enabled=True, endpoints=[])
    await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "vm")
    assert spans() == []


async def test_a_host_can_be_left_out_and_taken_in_again(pool: Pool, client: Client, spans: Any) -> None:
    hosts = [pool.host_ref(0)]
    ref = await observer(client, hosts=hosts, enabled=True)
    await client.call("Observer.unregister", ref, hosts[0])
    await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "vm")
    assert [span for span in spans() if span["name"] == "VM.clone"] == []
    await client.call("Observer.register", ref, hosts[0])
    await client.call("VM.clone", pool.ref("VM", "Tiny guest"), "vm")
    assert [span for span in spans() if span["name"] == "VM.clone"]
    assert await client.refusal("Observer.register", NOWHERE, hosts[0]) == ["HANDLE_INVALID", "Observer", NOWHERE]


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("components", ["frob"], ["component", "frob"]),
        ("endpoints", ["http://collector:9411"], ["endpoint", "http://collector:9411"]),
        ("hosts", [NOWHERE], ["host", NOWHERE]),
        ("attributes", {"Bad Key": "v"}, ["attributes", "Bad Key:v"]),
    ],
)
async def test_what_cannot_be_observed_is_refused(client: Client, field: str, value: Any, refusal: list[str]) -> None:
    assert await client.refusal("Observer.create", {**RECORD, field: value}) == ["INVALID_VALUE", *refusal]
    ref = await observer(client)
    assert await client.refusal(f"Observer.set_{field}", ref, value) == ["INVALID_VALUE", *refusal]


def test_a_trace_says_who_records_it() -> None:
    exporter = trace.Exporter()
    exporter.service = "vm"
    anybody = trace.scopes([trace.Scope()])
    assert exporter.records("")
    assert exporter.records(anybody)
    assert not exporter.records(trace.scopes([trace.Scope(components=frozenset({"xapi", "smapi"}))]))
    either = [trace.Scope(components=frozenset({"xapi"})), trace.Scope(components=frozenset({"xenopsd"}))]
    assert exporter.records(trace.scopes(either))


def test_a_process_records_for_its_hosts(tmp_path: Path) -> None:
    exporter = trace.Exporter()
    exporter.open(tmp_path / "spans.jsonl", "api", "a", frozenset({"a", "b"}))
    assert exporter.records(trace.scopes([trace.Scope(hosts=frozenset({"b", "c"}))]))
    assert not exporter.records(trace.scopes([trace.Scope(hosts=frozenset({"c"}))]))
    exporter.close()
