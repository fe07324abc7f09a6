"""A whole host dies, as by a power failure, and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from tests.support import load
from tests.support.jsonrpc import Client, Failure
from tests.support.pool import PoolUnderTest
from tests.support.soundness import assert_sound

pytestmark = [pytest.mark.pool, pytest.mark.timeout(180)]

AT_ONCE = 6.0
"""Seconds, of which nearly all are for a busy machine: the broker says that nobody is there. Silence is ten."""
NOTICED = 30.0
"""Seconds: ten of silence, and some for a busy machine."""


@pytest.fixture
async def client(simulator_pool: PoolUnderTest) -> AsyncIterator[Client]:
    simulator_pool.wait_ready()
    async with load.clean(simulator_pool) as made:
        yield made


@contextmanager
def dead(pool: PoolUnderTest, host: str) -> Iterator[None]:
    done = pool.command("host-down", host)
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        done = pool.command("host-up", host)
        assert done.returncode == 0, done.stderr


async def refused(client: Client, method: str, *params: object) -> list[str]:
    """The error; it has to come at once."""
    begun = time.monotonic()
    with pytest.raises(Failure) as caught:
        await client.call(method, *params)
    assert time.monotonic() - begun < AT_ONCE
    return caught.value.details


async def test_a_dead_host_is_noticed_avoided_and_taken_back(simulator_pool: PoolUnderTest, client: Client) -> None:
    sr = await load.default_sr(client)
    there, reset, other = [await load.machine(client, name, sr) for name in ("there", "reset", "other")]
    host = (await client.call("host.get_by_name_label", "host3"))[0]
    metrics = await client.call("host.get_metrics", host)
    for vm in (there, reset):
        await client.call("VM.start_on", vm, host, False, False)

    with dead(simulator_pool, "host3"):
        died = time.monotonic()
        offline = ["HOST_OFFLINE", host]
        assert await refused(client, "VM.hard_shutdown", there) == offline
        assert await refused(client, "VM.pause", there) == offline
        assert await refused(client, "VM.start_on", other, host, False, False) == offline
        assert await client.call("VM.get_power_state", there) == "Running", "nobody knows that it is not"

        token = ""
        while await client.call("host_metrics.get_live", metrics):
            assert time.monotonic() - died < NOTICED
            found = await client.call("event.from", [f"host_metrics/{metrics}"], token, 2.0)
            token = found["token"]
        for _ in range(6):
            await client.call("VM.start", other, False, False)
            assert await client.call("VM.get_resident_on", other) != host
            await client.call("VM.hard_shutdown", other)
        assert host not in await client.call("VM.get_possible_hosts", other)
        assert await refused(client, "VM.start_on", other, host, False, False) == ["HOST_NOT_LIVE"]

        await client.call("VM.power_state_reset", reset)
        assert await client.call("VM.get_power_state", reset) == "Halted"
        code, *_ = await refused(client, "VM.start", reset, False, False)
        assert code == "VDI_IN_USE", "a host that is only thought dead may still write"

    await assert_sound(simulator_pool, client)  # live and enabled again, its VMs as they are there
    assert await client.call("VM.get_power_state", there) == "Running"
    await client.call("VM.start_on", other, host, False, False)


async def test_a_start_on_a_host_that_dies_meanwhile_ends_in_time(
    simulator_pool: PoolUnderTest, client: Client
) -> None:
    async with load.running(client, 4) as work:
        await work.more_starts(5)
        with dead(simulator_pool, "host2"):
            await asyncio.sleep(1.0)
            await work.more_starts(5)
        await work.more_starts(10)
    assert work.slowest[1] < 30, f"too slow: {work.slowest}"
    await assert_sound(simulator_pool, client)
    await work.assert_kept(client)
