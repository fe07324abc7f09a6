"""Processes of a pool are killed and frozen under load: calls end in time, promises are kept, nothing is left over."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from pool import rabbitmq
from tests.support import load
from tests.support.jsonrpc import DEADLINE, Client, Failure, NoAnswer
from tests.support.pool import PoolUnderTest
from tests.support.soundness import assert_sound, files

pytestmark = [pytest.mark.pool, pytest.mark.timeout(240)]

CLIENTS = 8


@pytest.fixture
async def client(simulator_pool: PoolUnderTest) -> AsyncIterator[Client]:
    """What the test makes is gone after it, files included."""
    simulator_pool.wait_ready()
    async with load.clean(simulator_pool) as made:
        yield made
    assert files(simulator_pool) == set()


@contextmanager
def frozen(pool: PoolUnderTest, service: str, host: str) -> Iterator[None]:
    """The process exists and does nothing."""
    pid = pool.kill(service, host, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill_broker(pool: PoolUnderTest) -> None:
    node = rabbitmq.load(pool.directory / "rabbitmq")
    assert node is not None
    os.kill(node.pid, signal.SIGKILL)


async def assert_withstood(pool: PoolUnderTest, client: Client, work: load.Load) -> None:
    assert work.slowest[1] < DEADLINE, f"too slow: {work.slowest}"
    await assert_sound(pool, client)
    await work.assert_kept(client)


async def test_the_broker_is_killed_under_load(simulator_pool: PoolUnderTest, client: Client) -> None:
    """Twice. The second time a guest ends while nobody can hear of it."""
    async with load.running(client, CLIENTS) as work:
        await work.more_starts(10)
        kill_broker(simulator_pool)
        await work.more_starts(20, DEADLINE)
        guest = await short_lived(client, "1.5")
        kill_broker(simulator_pool)
        await work.more_starts(20, DEADLINE)
    await assert_withstood(simulator_pool, client, work)
    assert await client.call("VM.get_power_state", guest) == "Halted"


async def short_lived(client: Client, seconds: str) -> str:
    """A running VM whose guest will power off by itself. It has no devices, so its host needs nobody to end it."""
    template = (await client.call("VM.get_by_name_label", "Tiny guest"))[0]
    vm = str(await client.call("VM.clone", template, "short-lived"))
    await client.call("VM.provision", vm)
    await client.call("VM.add_to_other_config", vm, "sim:guest-shutdown-after", seconds)
    await client.call("VM.start", vm, False, False)
    return vm


@pytest.mark.parametrize("service", ["db", "vm", "storage", "network", "ha"])
async def test_a_service_is_killed_under_load(simulator_pool: PoolUnderTest, client: Client, service: str) -> None:
    async with load.running(client, CLIENTS) as work:
        await work.more_starts(10)
        pid = simulator_pool.kill(service)
        await work.more_starts(20, DEADLINE)
        simulator_pool.wait_restarted(service, other_than=pid)
    await assert_withstood(simulator_pool, client, work)
    assert set(work.outcomes()) <= {
        *(f"{step}: {outcome}" for step in work.steps for outcome in ("ok", "VM_BAD_POWER_STATE", "HOST_OFFLINE")),
    }


async def test_the_api_is_killed_under_load_and_sessions_go_on(simulator_pool: PoolUnderTest, client: Client) -> None:
    async with load.running(client, CLIENTS) as work:
        await work.more_starts(10)
        pid = simulator_pool.kill("api")
        await work.more_starts(20, DEADLINE)
        simulator_pool.wait_restarted("api", other_than=pid)
    await assert_withstood(simulator_pool, client, work)  # with the session that it had


@pytest.mark.parametrize("service", ["cli", "alerts", "metrics"])
async def test_a_service_that_no_start_needs_dies_unnoticed(
    simulator_pool: PoolUnderTest, client: Client, service: str
) -> None:
    async with load.running(client, 4) as work:
        await work.more_starts(5)
        pid = simulator_pool.kill(service)
        await work.more_starts(10)
        simulator_pool.wait_restarted(service, other_than=pid)
    assert all(outcome.endswith((": ok", ": VM_BAD_POWER_STATE")) for outcome in work.outcomes())
    await assert_withstood(simulator_pool, client, work)


async def test_a_session_survives_its_database(simulator_pool: PoolUnderTest, client: Client) -> None:
    """Sessions are never synced to disk; a killed process has written them all the same."""
    for _ in range(2):
        pid = simulator_pool.kill("db")
        simulator_pool.wait_restarted("db", other_than=pid)
        pool = (await client.call("pool.get_all"))[0]
        await client.call("pool.set_name_description", pool, f"after {pid}")
        assert await client.call("pool.get_name_description", pool) == f"after {pid}"


@pytest.mark.parametrize(("service", "host", "seconds"), [("db", "host1", 3.0), ("vm", "host2", 3.0)])
async def test_a_service_is_frozen_under_load(
    simulator_pool: PoolUnderTest, client: Client, service: str, host: str, seconds: float
) -> None:
    async with load.running(client, CLIENTS) as work:
        await work.more_starts(10)
        with frozen(simulator_pool, service, host):
            await asyncio.sleep(seconds)
        await work.more_starts(20)
    await assert_withstood(simulator_pool, client, work)


async def start_on(client: Client, vm: str, host: str) -> str:
    """How it ended: "ok", a code, or "no answer"."""
    ref = (await client.call("host.get_by_name_label", host))[0]
    try:
        await client.call("VM.start_on", vm, ref, False, False)
    except Failure as failure:
        return failure.code
    except NoAnswer:
        return "no answer"
    return "ok"


@pytest.mark.parametrize("victim", ["vm", "api"])
async def test_a_start_whose_process_dies_midway_ends_and_can_be_repeated(
    simulator_pool: PoolUnderTest, client: Client, victim: str
) -> None:
    """Storage stands still, so the start is midway for certain."""
    host = "host2" if victim == "vm" else "host1"
    vm = await load.machine(client, "midway", await load.default_sr(client))
    other = Client(client.address, client.port, client.session)
    with frozen(simulator_pool, "storage", "host2"):
        start = asyncio.create_task(start_on(other, vm, "host2"))
        await locked(client, vm)
        await asyncio.sleep(0.2)  # from the lock to the host
        pid = simulator_pool.kill(victim, host)
        simulator_pool.wait_restarted(victim, host, other_than=pid)
    outcome = await start
    other.close()
    assert outcome == ("ok" if victim == "vm" else "no answer")
    await when_it_answers(client)
    await assert_sound(simulator_pool, client)
    if await client.call("VM.get_power_state", vm) == "Halted":
        assert await start_on(client, vm, "host2") == "ok"
    assert await client.call("VM.get_power_state", vm) == "Running"


async def locked(client: Client, vm: str) -> None:
    """Until an operation works on it."""
    token = ""
    while True:
        found = await client.call("event.from", [f"vm/{vm}"], token, 10.0)
        token = found["token"]
        if any(event["snapshot"]["current_operations"] for event in found["events"]):
            return


async def when_it_answers(client: Client) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            await client.call("pool.get_all")
            return
        except NoAnswer:
            assert time.monotonic() < deadline, "the API has not come back"
            await asyncio.sleep(0.1)
