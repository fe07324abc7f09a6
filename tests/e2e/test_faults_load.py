"""More clients than usual, within bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.support import load
from tests.support.jsonrpc import Client, Failure
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.timeout(120)]


@pytest.fixture
async def client(simulator_pool: PoolUnderTest) -> AsyncIterator[Client]:
    simulator_pool.wait_ready()
    async with load.clean(simulator_pool) as made:
        yield made


def crowd(client: Client, size: int) -> list[Client]:
    return [Client(client.address, client.port, client.session) for _ in range(size)]


async def test_two_hundred_clients_at_once_are_all_served(client: Client) -> None:
    clients = crowd(client, 200)
    pool = (await client.call("pool.get_all"))[0]

    async def work(number: int, one: Client) -> None:
        await one.call("pool.add_to_other_config", pool, f"client-{number}", "was here")
        for _ in range(5):
            assert len(await one.call("host.get_all_records")) == 3
        await one.call("pool.remove_from_other_config", pool, f"client-{number}")

    begun = time.monotonic()
    await asyncio.gather(*(work(number, one) for number, one in enumerate(clients)))
    assert time.monotonic() - begun < 60
    assert not any(key.startswith("client-") for key in await client.call("pool.get_other_config", pool))
    for one in clients:
        one.close()


async def test_a_thousand_sessions(simulator_pool: PoolUnderTest, client: Client) -> None:
    """Of several programs: one alone may not have so many."""
    clients = crowd(client, 20)
    sessions: list[str] = []

    async def log_in(one: Client, program: str) -> None:
        for _ in range(50):
            await one.login(simulator_pool.password, program)
            sessions.append(one.session)

    async def log_out(one: Client, mine: list[str]) -> None:
        for session in mine:
            assert await one.bare("session.get_this_host", session, session) != ""
            await one.bare("session.logout", session)

    await asyncio.gather(*(log_in(one, f"program {number}") for number, one in enumerate(clients)))
    assert len(set(sessions)) == 1000
    await asyncio.gather(*(log_out(one, sessions[number::20]) for number, one in enumerate(clients)))
    with pytest.raises(Failure) as caught:
        await client.bare("session.get_this_host", sessions[0], sessions[0])
    assert caught.value.details == ["SESSION_INVALID", sessions[0]]
    for one in clients:
        one.close()


async def test_one_change_reaches_five_hundred_waiting_clients(client: Client) -> None:
    clients = crowd(client, 500)
    pool = (await client.call("pool.get_all"))[0]
    token = (await client.call("event.from", ["pool"], "", 0.0))["token"]
    waiting = [asyncio.create_task(one.call("event.from", [f"pool/{pool}"], token, 50.0)) for one in clients]
    await asyncio.gather(*(one.connected() for one in clients))
    description = f"seen at {time.time()}"
    begun = time.monotonic()
    await client.call("pool.set_name_description", pool, description)
    for found in await asyncio.gather(*waiting):
        assert [event["snapshot"]["name_description"] for event in found["events"]] == [description]
    assert time.monotonic() - begun < 30
    for one in clients:
        one.close()


async def test_waiting_clients_that_leave_are_forgotten(client: Client) -> None:
    before = await waiters(client)
    clients = crowd(client, 100)
    token = (await client.call("event.from", ["SM"], "", 0.0))["token"]
    waiting = [asyncio.create_task(one.call("event.from", ["SM"], token, 50.0)) for one in clients]
    await settle(client, before + 100)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for one in clients:
        one.close()
    await settle(client, before)


async def waiters(client: Client) -> int:
    """How many calls wait, by the process's own metrics."""
    reader, writer = await asyncio.open_connection(client.address, client.port)
    writer.write(f"GET /metrics HTTP/1.0\r\nHost: {client.address}\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    line = next(line for line in text.splitlines() if line.startswith("xapi_event_waiters"))
    return int(float(line.split()[-1]))


async def settle(client: Client, wanted: int) -> None:
    deadline = time.monotonic() + 10
    while (found := await waiters(client)) != wanted:
        assert time.monotonic() < deadline, f"{found} calls wait, not {wanted}"
        await asyncio.sleep(0.05)
