"""A client's own connection, lent to a transfer's worker: all but the last piece passes it, and both ends are told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from shared.contracts.loan import RETURNED_SIZE, Lent, Returned
from shared.contracts.transfer import Prepared
from shared.errors import ApiError
from tests.storage.support import MIB
from tests.storage.transfer.bench import Bench, bench

SIZE = 3 * MIB
CONTENT = b"".join(number.to_bytes(8) * 128 for number in range(SIZE // 1024))


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as running:
        yield running


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        client.setblocking(False)
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            yield client, server


@contextmanager
def lent(prepared: Prepared, server: socket.socket, early: bytes = b"", left: int = 0) -> Iterator[socket.socket]:
    """The socket of who lends."""
    with socket.socket(socket.AF_UNIX) as lender:
        lender.connect(prepared.path)
        socket.send_fds(lender, [Lent(len(early), left, 5.0).pack() + early], [server.fileno()])
        lender.setblocking(False)
        yield lender


async def received(connection: socket.socket, length: int) -> bytes:
    """Fewer at the end."""
    data = b""
    while len(data) < length and (part := await asyncio.get_running_loop().sock_recv(connection, length - len(data))):
        data += part
    return data


async def filled(storage: Bench) -> str:
    location = await storage.disk(SIZE)
    async with storage.opened(location) as disk:
        await disk.write(0, CONTENT)
    return location


async def test_all_but_the_last_piece_goes_to_the_client_itself(storage: Bench) -> None:
    prepared = await storage.export(await filled(storage), lent=True)
    with connected() as (client, server), lent(prepared, server) as lender:
        assert await received(client, SIZE - MIB) == CONTENT[:-MIB]
        assert await received(lender, SIZE) == CONTENT[-MIB:]
        assert (await storage.end(prepared)).stream == SIZE
        with pytest.raises(BlockingIOError):
            client.recv(1)
    assert storage.nothing_is_open()


async def test_a_body_is_taken_up_to_its_end_with_what_was_read_before(storage: Bench) -> None:
    location = await storage.disk(SIZE)
    prepared = await storage.accept(location, length=SIZE, lent=True)
    with connected() as (client, server), lent(prepared, server, CONTENT[:1000], SIZE) as lender:
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, CONTENT[1000:] + b"the next"))
        await storage.end(prepared)
        await sending
        assert Returned.unpack(await received(lender, RETURNED_SIZE)) == Returned(SIZE, False)
        assert await received(server, 8) == b"the next"
    assert await storage.content(location) == CONTENT


async def test_a_client_that_closes_too_early_is_told_of(storage: Bench) -> None:
    prepared = await storage.accept(await storage.disk(SIZE), length=SIZE, lent=True)
    with connected() as (client, server), lent(prepared, server, left=SIZE) as lender:
        await asyncio.get_running_loop().sock_sendall(client, CONTENT[: MIB + 5])
        client.close()
        with pytest.raises(ApiError):
            await storage.end(prepared)
        assert Returned.unpack(await received(lender, RETURNED_SIZE)) == Returned(MIB + 5, True)
    assert storage.nothing_is_open()


async def test_a_transfer_ends_with_who_lent_its_connection(storage: Bench) -> None:
    """As when the API is killed: the client's connection stays open in the worker otherwise."""
    location = await filled(storage)
    for prepare in (partial(storage.accept, location, length=SIZE), partial(storage.export, location)):
        prepared = await prepare(lent=True)
        with connected() as (client, server):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            with lent(prepared, server, left=SIZE):
                pass
            with pytest.raises(ApiError) as failed:
                await storage.end(prepared)
            assert "broken off" in str(failed.value)
    assert storage.nothing_is_open()
