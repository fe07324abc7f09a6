"""Two clients do different things to one VM at the same moment: the outcome is that of one after the other."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator

import pytest

from tests.support import load
from tests.support.jsonrpc import Client, Failure
from tests.support.pool import PoolUnderTest
from tests.support.soundness import assert_sound, files

pytestmark = [pytest.mark.pool, pytest.mark.timeout(180)]

ROUNDS = 30
JITTER = 0.015
"""Seconds by which one of the two may be later: a start takes about as long."""

CALLS = {
    "start": ("VM.start", (False, False)),
    "shutdown": ("VM.hard_shutdown", ()),
    "clone": ("VM.clone", ("copy",)),
    "destroy": ("VM.destroy", ()),
}
PAIRS = list(itertools.combinations_with_replacement(CALLS, 2))

State = str
"""Halted | Running | gone."""


def serial(state: State, call: str) -> tuple[State, str]:
    """What the call does alone: the VM's state after it, and the answer's code."""
    if state == "gone":
        return "gone", "HANDLE_INVALID"
    match call:
        case "start":
            return ("Running", "ok") if state == "Halted" else (state, "VM_BAD_POWER_STATE")
        case "shutdown":
            return ("Halted", "ok") if state == "Running" else (state, "VM_BAD_POWER_STATE")
        case "clone":
            return (state, "ok") if state == "Halted" else (state, "VM_BAD_POWER_STATE")
        case "destroy":
            return ("gone", "ok") if state == "Halted" else (state, "VM_BAD_POWER_STATE")
    raise AssertionError(call)


def outcomes(state: State, first: str, second: str) -> set[tuple[State, str, str]]:
    """(state, answer to the first, answer to the second) for both orders."""
    after, a = serial(state, first)
    after, b = serial(after, second)
    found = {(after, a, b)}
    after, b = serial(state, second)
    after, a = serial(after, first)
    return found | {(after, a, b)}


async def attempt(client: Client, vm: str, name: str, delay: float) -> str:
    await asyncio.sleep(delay)
    method, arguments = CALLS[name]
    try:
        await client.call(method, vm, *arguments)
    except Failure as failure:
        return failure.code
    return "ok"


async def state_of(client: Client, vm: str) -> State:
    rows = await client.call("VM.get_all_records")
    return str(rows[vm]["power_state"]) if vm in rows else "gone"


@pytest.fixture
async def client(simulator_pool: PoolUnderTest) -> AsyncIterator[Client]:
    simulator_pool.wait_ready()
    async with load.clean(simulator_pool) as made:
        yield made
    assert files(simulator_pool) == set()


async def test_two_clients_race_on_one_vm(simulator_pool: PoolUnderTest, client: Client) -> None:
    rng = random.Random(11)
    sr = await load.default_sr(client)
    rivals = [Client(client.address, client.port, client.session) for _ in range(2)]
    for number in range(ROUNDS):
        pair, before = PAIRS[number % len(PAIRS)], ("Halted", "Running")[(number // len(PAIRS)) % 2]
        vm = await load.machine(client, f"race {number}", sr)
        if before == "Running":
            await client.call("VM.start", vm, False, False)
        answers = await asyncio.gather(
            *(attempt(rival, vm, name, rng.uniform(0, JITTER)) for rival, name in zip(rivals, pair, strict=True))
        )
        after = (await state_of(client, vm), *answers)
        assert after in outcomes(before, *pair), f"round {number}: {pair} on a VM that was {before}"
    await assert_sound(simulator_pool, client)
    for rival in rivals:
        rival.close()
