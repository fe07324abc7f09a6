"""Clients that want all of a server for themselves: it goes on serving the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.api.edge import listeners
from services.api.edge.endpoint import Kind, Limits
from tests.api.edge.conftest import HOST, Running, Start
from tests.api.edge.fakes import call, post

ECHO = post(call("test.echo", "s", "x"))


async def test_of_too_many_connections_the_one_heard_of_least_recently_makes_room(start: Start) -> None:
    edge = await start(limits=Limits(connections=3))
    busy, silent, used = [await edge.client() for _ in range(3)]
    await edge.until(lambda: edge.edge.statistics.open == 3)
    await asyncio.sleep(0.02)  # the loop's clock has milliseconds
    await used.ask(ECHO)
    await busy.send(post(call("test.work", "s")))
    await edge.dispatcher.waiting.wait()
    assert (await (await edge.client(Kind.TLS)).ask(ECHO)).value == "x"
    assert await silent.at_end()
    assert (await used.ask(ECHO)).value == "x"
    edge.dispatcher.gate.set()
    assert (await busy.reply()).value == "done"


async def test_when_all_are_busy_more_are_refused_but_root_is_not(start: Start) -> None:
    edge = await start(limits=Limits(connections=2))
    busy = [await edge.client() for _ in range(2)]
    for number, client in enumerate(busy, 1):
        await client.send(post(call("test.work", "s")))
        await edge.until(lambda wanted=number: len(edge.dispatcher.calls) == wanted)  # type: ignore[misc]
    assert (await (await edge.client()).reply()).status == 503
    assert (await (await edge.client(Kind.UNIX)).ask(ECHO)).value == "x"
    edge.dispatcher.gate.set()
    for client in busy:
        assert (await client.reply()).value == "done"


async def test_one_who_sends_ten_thousand_calls_at_once_is_not_the_only_one_served(edge: Running) -> None:
    greedy, other = await edge.client(), await edge.client()
    count = 10_000
    sending = asyncio.create_task(greedy.send(ECHO * count))
    await edge.until(lambda: bool(edge.dispatcher.calls))
    assert (await other.ask(post(call("test.echo", "s", "other")))).value == "other"
    assert len(edge.dispatcher.calls) < count / 2
    for _ in range(count):
        assert (await greedy.reply()).value == "x"
    await sending


async def test_all_that_was_sent_before_the_end_is_answered(edge: Running) -> None:
    client = await edge.client()
    count = 3000
    answered = asyncio.create_task(client.reader.read())
    await client.send(ECHO * (count // 2) + post(call("test.large", "s", "100000")) + ECHO * (count // 2))
    client.writer.write_eof()
    assert (await answered).count(b"200 OK") == count + 1


async def test_empty_lines_cost_next_to_nothing(edge: Running) -> None:
    client = await edge.client()
    await client.ask(ECHO)
    begun = asyncio.get_running_loop().time()
    for _ in range(16):
        await client.send(b"\r\n" * (1 << 19))
    assert (await client.ask(ECHO)).value == "x"
    assert asyncio.get_running_loop().time() - begun < 1.0


@pytest.mark.parametrize("kind", [Kind.PLAIN, Kind.TLS])
async def test_a_client_that_never_takes_its_answers_is_sent_away(start: Start, kind: Kind) -> None:
    edge = await start(limits=Limits(stream=0.2))
    client = await edge.client(kind)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.writer.write(post(call("test.large", "s", "200000")) * 100)
    await edge.until(lambda: edge.edge.statistics.open == 1)
    await edge.until(lambda: not edge.edge.connections)


async def test_a_client_that_never_takes_its_page_counts_and_is_sent_away(start: Start, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "large").write_bytes(bytes(20_000_000))
    edge = await start(limits=Limits(stream=0.3), site=site)
    client = await edge.client(Kind.TLS)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
    await asyncio.sleep(0.1)
    assert edge.edge.statistics.open == 1
    await edge.until(lambda: not edge.edge.connections)
    assert edge.edge.statistics.open == 0


async def test_handshakes_that_never_end_are_not_begun_without_limit(start: Start) -> None:
    edge = await start(limits=Limits(handshakes=3))
    used = await edge.client(Kind.TLS)
    silent = [await asyncio.open_connection(HOST.address, edge.tls_port) for _ in range(3)]
    await edge.until(lambda: len(edge.edge.handshakes) == 3)
    with pytest.raises(ConnectionError):
        await edge.client(Kind.TLS)
    assert edge.edge.statistics.refused == 1
    assert (await used.ask(ECHO)).value == "x"
    assert (await (await edge.client()).ask(ECHO)).value == "x"

    (_, leaves), (_, talks_nonsense), (_, resets) = silent
    leaves.close()
    talks_nonsense.write(b"GET / HTTP/1.1\r\n\r\n")
    resets.transport.abort()
    await edge.until(lambda: not len(edge.edge.handshakes))
    talks_nonsense.close()
    assert (await (await edge.client(Kind.TLS)).ask(ECHO)).value == "x"


async def test_a_handshake_that_takes_too_long_makes_room(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "HANDSHAKE_TIMEOUT", 0.1)
    edge = await start(limits=Limits(handshakes=1))
    reader, writer = await asyncio.open_connection(HOST.address, edge.tls_port)
    await edge.until(lambda: len(edge.edge.handshakes) == 1)
    assert await reader.read() == b""
    await edge.until(lambda: not len(edge.edge.handshakes))
    writer.close()
    assert (await (await edge.client(Kind.TLS)).ask(ECHO)).value == "x"
