"""What a running pool tells about itself: health, counters, traces, figures, and who is there."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pool import plan, programs, waterfall
from shared.bus import amqp
from shared.bus.contract import Empty, Scope
from shared.bus.interface import Bus
from shared.contracts import service as contract
from shared.contracts.metrics import FIGURES, HostFigures
from shared.trace import new_traceparent
from tests.e2e import client
from tests.support.pool import PoolUnderTest

HOSTS = ("host1", "host2", "host3")

pytestmark = pytest.mark.pool


@pytest.fixture(scope="module")
def pool(simulator_pool: PoolUnderTest) -> PoolUnderTest:
    return simulator_pool


@pytest.fixture
async def bus(pool: PoolUnderTest) -> AsyncIterator[Bus]:
    """A client of the pool's own bus."""
    config = msgspec.toml.decode(programs.config_file(pool.directory, "host1", "api").read_bytes())
    connection = await amqp.connect(config["bus"]["url"], name="tests")
    try:
        yield connection
    finally:
        await connection.close()


def page(url: str) -> tuple[str, str]:
    """Content type and text."""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=20, context=unverified) as response:
        return response.headers["Content-Type"], response.read().decode()


def families(pool: PoolUnderTest, host: str) -> dict[str, Metric]:
    """The host's page for Prometheus, by the names of its counters."""
    kind, text = page(f"{pool.host_url(host)}/metrics")
    assert kind.startswith("text/plain; version=0.0.4")
    listed = list(text_string_to_metric_families(text))
    found = {family.name: family for family in listed}
    assert len(found) == len(listed), "a counter stands there twice"
    return found


# ---- health and counters


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_host_tells_that_it_is_ready(pool: PoolUnderTest, host: str, scheme: str) -> None:
    kind, text = page(f"{scheme}://{pool.hosts[host]}/health")
    assert kind == "application/json"
    told = json.loads(text)
    assert told["status"] == "ready"
    assert told["role"] == ("coordinator" if host == "host1" else "member")


def test_counters_of_every_service_of_a_host_are_on_one_page(pool: PoolUnderTest) -> None:
    of_each = {"xapi_replica_generation", "xapi_vm_vms", "storage_srs_attached", "network_vifs_plugged", "host_cpu"}
    assert of_each | {"xapi_db_generation", "ha_hosts_live"} <= set(families(pool, "host1"))
    for host in ("host2", "host3"):
        assert of_each <= set(families(pool, host))
        assert "xapi_db_generation" not in families(pool, host)


def test_a_started_vm_is_counted_where_it_runs(pool: PoolUnderTest, session: Any) -> None:
    api = session.xenapi
    host = api.host.get_by_name_label("host2")[0]
    with client.temporary_vm(api, "counted") as vm:
        before = _starts(pool)
        api.VM.start_on(vm, host, False, False)
        assert _starts(pool) == before | {"host2": before["host2"] + 1}
        (live,) = families(pool, "host1")["ha_hosts_live"].samples
        assert live.value == 3


def _starts(pool: PoolUnderTest) -> dict[str, float]:
    """VMs that each host has started."""
    samples = {host: families(pool, host)["xapi_vm_operations"].samples for host in HOSTS}
    return {host: sum(each.value for each in some if "start" in each.labels.values()) for host, some in samples.items()}


# ---- traces


def _spans(pool: PoolUnderTest, traceparent: str) -> list[waterfall.Span]:
    return waterfall.read(pool.directory, traceparent.split("-")[1])


def test_a_traced_start_is_one_tree_through_all_processes(pool: PoolUnderTest, session: Any) -> None:
    api = session.xenapi
    traceparent = new_traceparent()
    with client.temporary_vm(api, "traced", with_disk=True) as vm:
        client.interface(api, vm)
        call = client.JsonRpc(pool.url, {"traceparent": traceparent})
        assert call("VM.start", session._session, vm, False, False) == ""
        host = api.host.get_name_label(api.VM.get_resident_on(vm))

        spans = _spans(pool, traceparent)
        assert {span.service for span in spans} == {"api", "db", "vm", "storage", "network"}
        assert {span.host for span in spans if span.service in ("vm", "storage", "network")} == {host}
        lines = waterfall.lines(spans)
        assert [line.span.name for line in lines if line.depth == 0] == ["VM.start"]
        assert lines[0].span.parent_id == traceparent.split("-")[2]
        assert all(span.start_ns <= span.end_ns and not span.error for span in spans)

        done = pool.command("trace", traceparent)
        assert done.returncode == 0, done.stderr
        shown = done.stdout.splitlines()
        assert shown[1].split()[:2] == ["api", "host1"]
        assert shown[1].endswith("VM.start")
        assert any(line.split()[0] == "storage" for line in shown[2:])
        assert "VM.start" in pool.command("trace").stdout


def test_a_failed_call_shows_its_error_in_the_trace(pool: PoolUnderTest, session: Any) -> None:
    traceparent = new_traceparent()
    with client.temporary_vm(session.xenapi, "untraceable") as vm:
        call = client.JsonRpc(pool.url, {"traceparent": traceparent})
        assert call.answer("VM.pause", session._session, vm)["error"]["message"] == "VM_BAD_POWER_STATE"
    assert "VM_BAD_POWER_STATE" in waterfall.lines(_spans(pool, traceparent))[0].span.error


def test_a_call_that_nobody_traces_leaves_no_span(pool: PoolUnderTest, session: Any) -> None:
    traceparent = new_traceparent(sampled=False)
    with client.temporary_vm(session.xenapi, "untraced") as vm:
        client.JsonRpc(pool.url, {"traceparent": traceparent})("VM.start", session._session, vm, False, False)
    assert _spans(pool, traceparent) == []


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_a_trace_that_xe_began_goes_on_in_the_services(pool: PoolUnderTest, session: Any, host: str) -> None:
    traceparent = new_traceparent()
    with client.temporary_vm(session.xenapi, "by xe") as vm:
        subprocess.run(
            [
                str(Path(sys.executable).with_name("xe")),
                "vm-start",
                f"uuid={session.xenapi.VM.get_uuid(vm)}",
                "--traceparent",
                traceparent,
            ],
            env={"XE_SOCKET": str(plan.socket_path(pool.directory, host))},
            timeout=60,
            check=True,
        )
    assert {"cli", "api", "db", "vm"} <= {span.service for span in _spans(pool, traceparent)}


# ---- the bus


@pytest.mark.parametrize("service", ["db", "ha", "alerts"])
async def test_services_of_the_pool_answer_on_the_bus(bus: Bus, service: str) -> None:
    await bus.call(contract.ping(service, Scope.POOL), Empty())
    status = await bus.call(contract.status(service, Scope.POOL), Empty())
    assert (status.service, status.state) == (service, "ready")


@pytest.mark.parametrize("service", ["api", "vm", "storage", "network", "metrics", "ha", "cli"])
async def test_services_of_each_host_answer_on_the_bus(pool: PoolUnderTest, bus: Bus, service: str) -> None:
    for host in pool.plan.hosts:
        await bus.call(contract.ping(service, Scope.HOST), Empty(), host=host.uuid)
        status = await bus.call(contract.status(service, Scope.HOST), Empty(), host=host.uuid)
        assert (status.service, status.state) == (service, "ready")
        assert status.pid == pool.pid(service, host.name)


async def test_figures_of_hosts_and_their_vms_are_published(pool: PoolUnderTest, bus: Bus, session: Any) -> None:
    api = session.xenapi
    seen: asyncio.Queue[tuple[HostFigures, str]] = asyncio.Queue()
    with client.temporary_vm(api, "measured") as vm:
        await asyncio.to_thread(api.VM.start, vm, False, False)
        uuid, host = api.VM.get_uuid(vm), api.host.get_uuid(api.VM.get_resident_on(vm))
        memory = int(api.VM.get_memory_static_max(vm))
        await bus.subscribe(FIGURES, lambda figures, key: seen.put_nowait((figures, key)))
        told: set[str] = set()
        async with asyncio.timeout(15):
            while told != {each.uuid for each in pool.plan.hosts}:
                figures, key = await seen.get()
                assert key == f"metrics.{figures.host}"
                assert 0.0 <= figures.cpu <= 1.0
                assert 0 < figures.memory_free <= figures.memory_total
                vms = {each.vm: each for each in figures.vms}
                assert (uuid in vms) == (figures.host == host)
                if figures.host == host:
                    assert vms[uuid].memory == memory
                told.add(figures.host)
