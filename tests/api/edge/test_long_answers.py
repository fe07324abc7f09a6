"""Answers of many megabytes, sent in pieces at the pace of their client."""

from __future__ import annotations

import asyncio
import re

import pytest

from services.api.edge.endpoint import Kind, Limits
from tests.api.edge.conftest import Running, Start
from tests.api.edge.fakes import Reply, call, post

COUNT = 12_000
"""Pieces of a kilobyte: more than the sockets' buffers hold."""

ASK = post(call("test.pieces", "s", str(COUNT)))
ECHO = post(call("test.echo", "s", "x"))


def numbers(reply: Reply) -> list[int]:
    """What the answer holds, in order."""
    return [int(found[1]) for found in re.finditer(rb"<value>(\d{1000})</value>", reply.body)]


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_long_answer_arrives_whole_and_the_connection_goes_on(edge: Running, kind: Kind) -> None:
    client = await edge.client(kind)
    await client.send(ASK + ECHO)
    reply = await client.reply()
    assert reply.body.startswith(b"<?xml")
    assert numbers(reply) == list(range(COUNT))
    assert (await client.reply()).value == "x"


async def test_others_are_answered_while_a_client_takes_its_time(edge: Running) -> None:
    slow, other = await edge.client(), await edge.client()
    await slow.send(ASK)
    await slow.reader.readexactly(1000)
    for _ in range(5):
        assert (await other.ask(ECHO)).value == "x"
    [waiting] = [connection for connection in edge.edge.connections if not connection.writer.writable]
    assert waiting.writer.transport.get_write_buffer_size() < 1024 * 1024, (
        "what the client does not take is not held twice"
    )
    rest = bytearray()
    while not rest.endswith(b"</methodResponse>"):
        rest += await slow.reader.read(2**20)
    assert rest.count(b"<member>") > COUNT // 2


async def test_a_client_that_has_closed_its_half_gets_all_of_it(edge: Running) -> None:
    client = await edge.client()
    await client.send(ASK)
    client.writer.write_eof()
    assert numbers(await client.reply()) == list(range(COUNT))
    assert await client.at_end()


async def test_nothing_is_left_of_a_client_that_goes(edge: Running) -> None:
    client = await edge.client()
    await client.send(ASK)
    await client.reader.readexactly(1000)
    client.writer.transport.abort()
    await edge.until(lambda: not edge.edge.connections and not edge.edge._tasks)


async def test_a_client_that_takes_nothing_is_sent_away(start: Start) -> None:
    edge = await start(limits=Limits(stream=0.2))
    client = await edge.client()
    await client.send(ASK)
    await edge.until(lambda: not edge.edge.connections and not edge.edge._tasks)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client.reply()
