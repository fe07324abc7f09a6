"""The NBD client and qemu-nbd: what is written is what is read, many requests at a time, and how it fails."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.formats.interface import Extent
from services.storage.nbd import protocol
from services.storage.nbd.address import Address, parse
from services.storage.nbd.client import NbdClient, NbdError
from services.storage.nbd.server import NbdServer, Programs
from shared.contracts.storage import Backend
from shared.errors import ApiError
from tests.storage.support import MIB

SIZE = 8 * MIB


def backend(image: Path, writable: bool = True, form: str = "raw") -> Backend:
    return Backend(dp="vbd/x/0", kind="file", path=str(image), format=form, writable=writable)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image; with, a 'name'"
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
async def client(image: Path, tmp_path: Path) -> AsyncIterator[NbdClient]:
    async with await NbdServer.start(backend(image), tmp_path) as server, await NbdClient.connect(server.address) as it:
        yield it


async def test_many_writes_at_once_are_read_again(client: NbdClient, image: Path) -> None:
    model, parts = bytearray(SIZE), random.Random(7)
    writes = []
    for begin in range(0, SIZE, 256 * 1024):
        data = parts.randbytes(parts.randrange(1, 200_000))
        offset = begin + parts.randrange(0, 50_000)
        model[offset : offset + len(data)] = data
        writes.append(client.write(offset, data))
    await asyncio.gather(*writes)
    await client.zero(3 * MIB, 100_000)
    model[3 * MIB : 3 * MIB + 100_000] = bytes(100_000)
    await client.flush()
    assert await asyncio.to_thread(image.read_bytes) == model
    read = await asyncio.gather(*(client.read(at, MIB) for at in range(0, SIZE, MIB)))
    assert b"".join(read) == model


async def test_extents_tell_zeros_from_data(client: NbdClient) -> None:
    await client.write(MIB, b"x" * MIB)
    await client.write(5 * MIB, b"y" * (2 * MIB))
    await client.flush()
    expected = [
        Extent(0, MIB, True),
        Extent(MIB, MIB, False),
        Extent(2 * MIB, 3 * MIB, True),
        Extent(5 * MIB, 2 * MIB, False),
        Extent(7 * MIB, MIB, True),
    ]
    assert [each async for each in client.extents()] == expected
    assert [each async for each in client.extents(MIB, MIB)] == [expected[1]]
    assert [each async for each in client.extents(MIB, 0)] == []


async def test_what_the_server_refuses_is_an_error_and_the_next_request_is_served(image: Path, tmp_path: Path) -> None:
    async with (
        await NbdServer.start(backend(image, writable=False), tmp_path) as server,
        await NbdClient.connect(server.address) as client,
    ):
        assert not client.writable
        with pytest.raises(NbdError) as refused:
            await client.write(0, b"x")
        assert refused.value.errno in (errno.EPERM, errno.EINVAL)
        with pytest.raises(NbdError):
            await client.read(SIZE, 1)
        assert await client.read(0, 1) == b"\0"


async def test_a_server_that_dies_fails_every_request(image: Path, tmp_path: Path) -> None:
    async with await NbdServer.start(backend(image), tmp_path) as server:
        client = await NbdClient.connect(server.address)
        reads = [asyncio.create_task(client.read(at, MIB)) for at in range(0, SIZE, MIB)]
        await server.close()
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert all(isinstance(each, bytes | NbdError) for each in outcomes)
        with pytest.raises(NbdError):
            await client.read(0, 1)
        await client.close()
    assert not Path(server.address.path).exists()  # noqa: ASYNC240


async def test_a_cancelled_read_does_not_confuse_the_others(client: NbdClient) -> None:
    await client.write(0, b"a" * MIB)
    read = asyncio.create_task(client.read(0, MIB))
    await asyncio.sleep(0)
    read.cancel()
    assert await client.read(MIB - 1, 2) == b"a\0"


async def test_a_disk_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ApiError) as failed:
        await NbdServer.start(backend(tmp_path / "none", form="qcow2"), tmp_path)
    assert failed.value.code == "SR_BACKEND_FAILURE_65"
    assert "No such file" in failed.value.params[2]
    with pytest.raises(ApiError) as missing:
        await NbdServer.start(backend(tmp_path / "none"), tmp_path, programs=Programs("no-such-program"))
    assert "qemu-utils" in str(missing.value)


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"NBDMAGIC" + b"IHAVEOPT" + b"\0\0",
        b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53" * 9,
    ],
)
async def test_what_is_no_server_is_refused(tmp_path: Path, greeting: bytes) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "socket"):
        with pytest.raises(NbdError):
            await NbdClient.connect(Address(path=str(tmp_path / "socket")))


def test_replies_that_lie_about_their_data_are_refused() -> None:
    """A chunk outside of what was asked for, as a hostile server would send it."""
    done: list[int] = []
    buffer = bytearray(16)
    pending = {
        1: protocol.Pending(protocol.Command.READ, 4096, lambda error, _: done.append(error), memoryview(buffer))
    }
    parser = protocol.replies(pending)
    head = b"\x66\x8e\x33\xef\x00\x01\x00\x01" + (1).to_bytes(8, "big") + (24).to_bytes(4, "big")
    data = head + (4097).to_bytes(8, "big") + bytes(16)
    with pytest.raises(protocol.ProtocolError):
        _feed(parser, data)
    assert not done


def _feed(parser: protocol.Parser[None], data: bytes) -> None:
    for view in parser:
        view[:] = data[: len(view)]
        data = data[len(view) :]


def test_addresses_are_read_as_they_are_written() -> None:
    unix = Address(path="/run/x.nbd", export="a/b c")
    assert parse(str(unix)) == unix
    assert parse("nbd+unix:///a%2Fb%20c?socket=/run/x.nbd") == unix
    assert parse("/run/x.nbd") == Address(path="/run/x.nbd")
    assert parse("nbd://[::1]:99/e") == Address(host="::1", port=99, export="e")
    for wrong in ("", "nbd:unix:", "http://x/", "nbd+unix:///x"):
        with pytest.raises(ValueError, match="not the address"):
            parse(wrong)
