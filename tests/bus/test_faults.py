"""What dies: the broker under load, a server in the middle of a call."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from pool import rabbitmq
from shared.bus import amqp
from shared.bus.interface import BusError, HostOffline, ResultUnknown
from shared.bus.timing import Timing
from tests.bus.contract import Contract, Number
from tests.bus.wire import until

pytestmark = pytest.mark.broker

CALLERS = 50
TIMEOUT = 40.0
"""Of a call; far more than a broker needs to come back on a busy machine."""
HURRIED = 1.5
"""Of the calls of every tenth caller: less than the broker is away."""
LATE = 5.0
"""Seconds that a call may end after its deadline, on a busy machine."""
SHORT_GRACE = replace(Timing(), probe_first=0.5, probe_every=1.0, grace=3.0)


async def test_killing_the_broker_under_load_loses_no_call_and_runs_none_twice(
    broker_node: rabbitmq.Node, contract: Contract
) -> None:
    client, server = await amqp.connect(broker_node.url, "client"), await amqp.connect(broker_node.url, "server")
    ran: collections.Counter[int] = collections.Counter()

    async def work(request: Number) -> Number:
        ran[request.n] += 1
        await asyncio.sleep(random.uniform(0, 0.2))
        return Number(n=request.n + 1)

    methods = (contract.slow, contract.once, contract.patient)
    for method in methods:
        await server.serve(method, work)
    await server.start_consuming(contract.service)
    numbers = iter(range(1_000_000))
    outcomes: collections.Counter[str] = collections.Counter()
    late: list[float] = []
    stopping = asyncio.Event()

    async def caller(method_index: int) -> None:
        method = methods[method_index % len(methods)]
        timeout = HURRIED if method_index % 10 == 0 else TIMEOUT
        while not stopping.is_set():
            n = next(numbers)
            begun = time.monotonic()
            try:
                answer = await client.call(method, Number(n=n), timeout=timeout)
                assert answer == Number(n=n + 1)
                outcomes["answer"] += 1
            except BusError as error:
                outcomes[f"{type(error).__name__} after {timeout} s"] += 1
            if time.monotonic() - begun > timeout + LATE:
                late.append(time.monotonic() - begun)

    callers = [asyncio.create_task(caller(index)) for index in range(CALLERS)]
    await until(lambda: outcomes["answer"] > 200)
    await asyncio.to_thread(rabbitmq.kill9, broker_node)
    await until(lambda: not client.connected and not server.connected)
    before = outcomes["answer"]
    await asyncio.to_thread(rabbitmq.start, broker_node.directory)
    await until(lambda: outcomes["answer"] > before + 500, timeout=TIMEOUT)
    stopping.set()
    await asyncio.wait_for(asyncio.gather(*callers), TIMEOUT + LATE)
    assert late == []
    assert max(ran.values()) == 1
    assert await client.call(contract.slow, Number(n=-1)) == Number(n=0)
    assert client.metrics()["calls_waiting"] == 0
    assert server.metrics()["running"] == 0
    # The server lived, and everybody was back within the longer deadline: none of those calls was given up.
    assert set(outcomes) == {"answer", f"DeadlineExceeded after {HURRIED} s"}
    await client.close()
    await server.close()


@contextlib.asynccontextmanager
async def server_process(url: str, service: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bus.server", url, service, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def begun(process: asyncio.subprocess.Process, n: int) -> None:
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == f"slow {n}\n".encode()


async def test_a_call_to_a_server_that_is_killed_ends_within_the_grace(broker_url: str, contract: Contract) -> None:
    client = await amqp.connect(broker_url, "client", SHORT_GRACE)
    try:
        async with server_process(broker_url, contract.service) as process:
            call = asyncio.create_task(client.call(contract.slow, Number(n=1), timeout=60))
            await begun(process, 1)
            process.kill()
            killed = time.monotonic()
            with pytest.raises(HostOffline):
                await asyncio.wait_for(call, 30)
            assert time.monotonic() - killed < SHORT_GRACE.probe_every + SHORT_GRACE.grace + LATE
            with pytest.raises(HostOffline):
                await asyncio.wait_for(client.call(contract.slow, Number(n=2)), SHORT_GRACE.grace)
    finally:
        await client.close()


async def test_a_server_that_is_restarted_runs_again_what_may_run_again(broker_url: str, contract: Contract) -> None:
    client = await amqp.connect(broker_url, "client", SHORT_GRACE)
    try:
        async with server_process(broker_url, contract.service) as process:
            patient = asyncio.create_task(client.call(contract.patient, Number(n=1), timeout=60))
            await begun(process, 1)
            once = asyncio.create_task(client.call(contract.once, Number(n=2), timeout=60))
            await begun(process, 2)
            process.kill()
            await process.wait()
        async with server_process(broker_url, contract.service) as process:
            await begun(process, 1)
            with pytest.raises(ResultUnknown):
                await asyncio.wait_for(once, 30)
            patient.cancel()
            assert await client.call(contract.slow, Number(n=0)) == Number(n=0)
    finally:
        await client.close()
