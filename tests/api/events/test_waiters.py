"""Many clients that wait at once, over real connections. `python -m bench.events` has ten thousand of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.event_clients import Client as HttpClient
from bench.event_clients import call, connect_many
from services.api.access import Access, ConsoleAccess
from services.api.edge.endpoint import Endpoint, Kind, Limits
from services.api.edge.server import Edge
from services.api.edge.tls import Certificates
from services.api.edge.web import Health
from services.api.handlers.serving import HandlerTable
from services.api.wire.jsonrpc import JSON
from shared.config import HostConfig
from shared.errors import ApiError
from tests.api.events.looking import look
from tests.api.events.rows import network, rename
from tests.api.harness import Client, Pool

MANY = 1500


class Facts:
    def health(self, host: str) -> Health:
        return Health(ready=True)

    async def metrics(self, host: str) -> str:
        return ""


@pytest.fixture
async def port(pool: Pool, tmp_path: Path) -> AsyncIterator[int]:
    """Of plain HTTP, with room for all of them."""
    access = Access(pool.api)
    edge = Edge(
        dispatcher=pool.core.dispatcher,
        authenticator=access,
        consoles=ConsoleAccess(pool.api),
        handlers=HandlerTable(pool.api, access),
        facts=Facts(),
        bus=pool.api.bus,
        certificates=Certificates(tmp_path / "tls"),
        is_coordinator=lambda host: True,
        limits=Limits(connections=MANY + 100),
    )
    host = HostConfig(uuid=pool.api.host_uuid, name="host", address="127.0.0.1")
    [opened] = await edge.listen(host, [Endpoint(host.uuid, Kind.PLAIN, host.address)])
    yield opened.port
    await edge.close()


async def waiting(
    pool: Pool, port: int, count: int, session: str, *params: Any
) -> tuple[list[HttpClient], list[asyncio.Future[None]]]:
    """So many clients in `event.from`; and their answers to come."""
    clients = await connect_many("127.0.0.1", port, count)
    request = call("event.from", session, *params)
    answers = [one.send(request) for one in clients]
    async with asyncio.timeout(30):
        while pool.api.hub.waiting < count:  # noqa: ASYNC110 (nobody is told when a call begins to wait)
            await asyncio.sleep(0.01)
    return clients, answers


async def test_many_who_wait_cost_little_and_hear_of_one_change_together(pool: Pool, client: Client, port: int) -> None:
    await pool.write(network("n"))
    await pool.settled()
    token = (await look(client, ["network"]))["token"]
    process = psutil.Process()
    before = process.memory_info().rss
    clients, answers = await waiting(pool, port, MANY, client.session, ["network"], token, 60.0)
    each = (process.memory_info().rss - before) / MANY
    assert each < 40_000, f"{each:.0f} bytes for each waiter and its client"
    spent = time.process_time()  # of clients and server, as other work on the machine must not count
    await pool.write(rename("n", "x"))
    await asyncio.wait_for(asyncio.gather(*answers), 10)
    assert time.process_time() - spent < 1.0
    assert len({one.body for one in clients}) == 1
    told = json.loads(clients[0].body)["result"]
    assert [(event["operation"], event["snapshot"]["name_label"]) for event in told["events"]] == [("mod", "x")]
    assert pool.api.hub.waiting == 0
    for one in clients:
        one.transport.close()


async def test_other_calls_are_answered_while_many_are_told(pool: Pool, client: Client, port: int) -> None:
    await pool.write(network("n"))
    token = (await look(client, ["network/n"]))["token"]
    clients, answers = await waiting(pool, port, 500, client.session, ["network/n"], token, 60.0)
    await pool.write(rename("n", "x"))
    await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    assert await client.call("network.get_name_label", "n") == "x"
    assert not all(one.done() for one in answers)
    await asyncio.wait_for(asyncio.gather(*answers), 10)
    for one in clients:
        one.transport.close()


async def test_the_end_of_their_session_reaches_all_who_wait(pool: Pool, client: Client, port: int) -> None:
    session = client.session
    clients, answers = await waiting(pool, port, 300, session, ["nothing"], "", 60.0)
    await client.call("session.logout")
    await asyncio.wait_for(asyncio.gather(*answers), 10)
    refusals = {one.body for one in clients}
    assert [json.loads(body)["error"]["data"] for body in refusals] == [[session]]
    assert pool.api.hub.waiting == 0
    for one in clients:
        one.transport.close()


async def test_a_wait_that_begins_after_its_session_has_ended_is_refused_at_once(pool: Pool, client: Client) -> None:
    session = client.session
    await client.call("session.logout")
    async with asyncio.timeout(10):
        with pytest.raises(ApiError, match="SESSION_INVALID"):
            await pool.api.hub.wait(session, ["nothing"], "", 60.0, JSON)


async def test_clients_that_go_away_are_forgotten(pool: Pool, client: Client, port: int) -> None:
    clients, answers = await waiting(pool, port, 300, client.session, ["nothing"], "", 60.0)
    for one in clients:
        one.transport.abort()
    async with asyncio.timeout(10):
        while pool.api.hub.waiting:  # noqa: ASYNC110 (nobody is told when a call stops waiting)
            await asyncio.sleep(0.01)
    await asyncio.gather(*answers, return_exceptions=True)


async def test_one_change_wakes_only_those_it_concerns(pool: Pool, client: Client, port: int) -> None:
    await pool.write(*(network(f"n{number}") for number in range(200)))
    token = (await look(client, ["network"]))["token"]
    clients = await connect_many("127.0.0.1", port, 200)
    answers = [
        one.send(call("event.from", client.session, [f"network/n{number}"], token, 60.0))
        for number, one in enumerate(clients)
    ]
    async with asyncio.timeout(10):
        while pool.api.hub.waiting < 200:  # noqa: ASYNC110 (nobody is told when a call begins to wait)
            await asyncio.sleep(0.01)
    await pool.write(rename("n7", "x"))
    await asyncio.wait_for(answers[7], 10)
    assert [number for number, one in enumerate(answers) if one.done()] == [7]
    assert pool.api.hub.waiting == 199
    for one in clients:
        one.transport.abort()
    await asyncio.gather(*answers, return_exceptions=True)
