"""The xe program's conversation, with a service that is a script."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.api.edge.endpoint import Kind
from shared.contracts.cli import CliCommand
from tests.api.edge.conftest import Running
from tests.api.edge.fakes import Client, cli_frame, post

BANNER = b"XenSource thin CLI protocol" + bytes([0, 0, 0, 0, 2, 0, 0, 0])
COMMAND = b"vm-list\n--minimal\nusername=root\npassword=null"
PRINT = cli_frame(9, 0, text=b"u1,u2")
EXIT = cli_frame(9, 4, 0)
REQUEST = post(COMMAND, "/cli", "1.0", "originator: cli\r\n")


async def two_words(command: CliCommand, said: "asyncio.Queue[bytes]") -> AsyncIterator[bytes]:
    yield PRINT
    yield EXIT


async def echo_input(command: CliCommand, said: "asyncio.Queue[bytes]") -> AsyncIterator[bytes]:
    yield cli_frame(9, 3)
    yield cli_frame(9, 0, text=await said.get())
    yield EXIT


async def silence(command: CliCommand, said: "asyncio.Queue[bytes]") -> AsyncIterator[bytes]:
    yield PRINT
    await asyncio.Event().wait()


async def spoken_to(client: Client, data: bytes) -> bytes:
    """Sends it, reads the banner, gives everything that follows."""
    await client.send(data)
    assert await client.reader.readexactly(len(BANNER)) == BANNER
    return await client.reader.read()


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_command_runs_on_every_kind_of_connection(edge: Running, kind: Kind) -> None:
    edge.bus.script = two_words
    client = await edge.client(kind)
    await client.send(REQUEST)
    assert await client.reader.readexactly(len(BANNER)) == BANNER, "no HTTP reply comes before it"
    await client.send(BANNER)
    assert await client.reader.read() == PRINT + EXIT
    command = edge.bus.commands[0]
    assert command.body == COMMAND.decode()
    assert command.trusted is (kind is Kind.UNIX)
    assert command.address == ("" if kind is Kind.UNIX else "127.0.0.1")


@pytest.mark.parametrize("kind", [Kind.PLAIN, Kind.TLS])
async def test_a_client_may_send_everything_in_one_piece(edge: Running, kind: Kind) -> None:
    edge.bus.script = echo_input
    client = await edge.client(kind)
    answer = await spoken_to(client, REQUEST + BANNER + b"early")
    assert answer == cli_frame(9, 3) + cli_frame(9, 0, text=b"early") + EXIT


async def test_what_the_client_answers_reaches_the_service(edge: Running) -> None:
    edge.bus.script = echo_input
    client = await edge.client()
    await client.send(REQUEST + BANNER)
    await client.reader.readexactly(len(BANNER) + len(cli_frame(9, 3)))
    await client.send(b"\x00\xffanswer")
    assert await client.reader.read() == cli_frame(9, 0, text=b"\x00\xffanswer") + EXIT


async def test_a_client_that_goes_ends_its_command(edge: Running) -> None:
    edge.bus.script = silence
    client = await edge.client(Kind.TLS)
    await client.send(REQUEST + BANNER)
    await client.reader.readexactly(len(BANNER) + len(PRINT))
    client.close()
    async with asyncio.timeout(30):
        await edge.bus.ended.wait()
    await edge.until(lambda: not edge.edge.connections)
    assert edge.bus.input.get_nowait() == b"", "the service is told"


async def test_without_the_service_the_client_gets_an_error_and_exit_status_one(edge: Running) -> None:
    answer = await spoken_to(await edge.client(), REQUEST + BANNER)
    assert b"HOST_OFFLINE" in answer
    assert answer.endswith(cli_frame(9, 4, 1))


@pytest.mark.parametrize("banner", [b"GET / HTTP/1.1\r\n\r\n" + b"x" * 40, BANNER[:27] + b"\x09" + BANNER[28:]])
async def test_another_protocol_or_version_is_hung_up_on(edge: Running, banner: bytes) -> None:
    edge.bus.script = two_words
    assert await spoken_to(await edge.client(), REQUEST + banner) == b""
    assert not edge.bus.commands


async def test_a_client_that_goes_before_its_banner_leaves_nothing(edge: Running) -> None:
    client = await edge.client()
    await client.send(REQUEST + BANNER[:5])
    client.close()
    await edge.until(lambda: edge.edge.statistics.commands == 1 and not edge.edge.connections)


async def test_stopping_ends_commands(edge: Running) -> None:
    edge.bus.script = silence
    client = await edge.client()
    await client.send(REQUEST + BANNER)
    await client.reader.readexactly(len(BANNER) + len(PRINT))
    await edge.edge.close(timeout=0.05)
    assert edge.bus.ended.is_set()
    assert await client.at_end()
