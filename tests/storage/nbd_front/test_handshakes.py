"""The process that NBD clients talk to, on the wire: what it takes, what it refuses, and whom it sends away."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from services.storage.nbd.front.clients import CLIENTS
from services.storage.nbd.front.process import FrontProcess
from services.storage.nbd.front.words import Gone, Listening, Refused, Serve, Told, Wanted
from services.storage.nbd.protocol import GREETING, IHAVEOPT, NBDMAGIC, OPTION, OPTION_REPLY, Option, OptionReply

HAGGLE_WITHIN = 0.5


@dataclass
class Front:
    process: FrontProcess
    port: int = 0
    told: list[Told] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        """What it tells; nobody gets an export."""
        async for word in self.process.words():
            self.told.append(word)
            self.news.set()
            if isinstance(word, Wanted):
                self.process.tell(Refused(word.connection, "denied", "not today"))

    async def until(self, kind: type[Told]) -> None:
        async with asyncio.timeout(10):
            while not any(isinstance(word, kind) for word in self.told):
                self.news.clear()
                await self.news.wait()

    async def client(self) -> Raw:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        return Raw(reader, writer)


@dataclass
class Raw:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def greet(self, flags: int = 3) -> Raw:
        magic, style, _ = GREETING.unpack(await self.reader.readexactly(GREETING.size))
        assert (magic, style) == (NBDMAGIC, IHAVEOPT)
        self.writer.write(struct.pack(">I", flags))
        return self

    async def option(self, option: int, data: bytes = b"") -> tuple[int, bytes]:
        self.writer.write(OPTION.pack(IHAVEOPT, option, len(data)) + data)
        _, answered, kind, length = OPTION_REPLY.unpack(await self.reader.readexactly(OPTION_REPLY.size))
        assert answered == option
        return kind, await self.reader.readexactly(length)

    async def gone(self) -> bool:
        """Whether it is sent away, whatever it was told before."""
        try:
            async with asyncio.timeout(5):
                await self.reader.read()
        except ConnectionError:
            return True
        finally:
            self.writer.close()
        return True


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    running = Front(await FrontProcess.start(HAGGLE_WITHIN))
    listening = asyncio.create_task(running.listen())
    running.process.tell(Serve(["127.0.0.1"], 0))
    await running.until(Listening)
    first = running.told[0]
    assert isinstance(first, Listening)
    running.port = first.ports["127.0.0.1"]
    yield running
    await running.process.close()
    await listening


def named(name: bytes, more: bytes = struct.pack(">H", 0)) -> bytes:
    return struct.pack(">I", len(name)) + name + more


async def test_options_are_answered_as_the_protocol_has_them(front: Front) -> None:
    client = await (await front.client()).greet()
    for option, data, kind in (
        (Option.LIST, b"", OptionReply.ERR_POLICY),
        (Option.STARTTLS, b"", OptionReply.ERR_POLICY),
        (99, b"who knows", OptionReply.ERR_UNSUP),
        (Option.SET_META_CONTEXT, named(b"x", struct.pack(">I", 0)), OptionReply.ERR_INVALID),
        (Option.STRUCTURED_REPLY, b"data", OptionReply.ERR_INVALID),
        (Option.STRUCTURED_REPLY, b"", OptionReply.ACK),
        (Option.GO, struct.pack(">I", 4000) + b"shorter", OptionReply.ERR_INVALID),
        (Option.INFO, b"", OptionReply.ERR_INVALID),
        (Option.GO, named(b"\xff\xfe"), OptionReply.ERR_UNKNOWN),
        (Option.GO, named(bytes(4097)), OptionReply.ERR_INVALID),
        (Option.GO, named(bytes(4096)), OptionReply.ERR_POLICY),
    ):
        assert (await client.option(option, data))[0] == kind
    for name in (b"a", b"b"):
        assert await client.option(Option.GO, named(name)) == (OptionReply.ERR_POLICY, b"not today")
    assert [word.export for word in front.told if isinstance(word, Wanted)] == ["\0" * 4096, "a", "b"]
    assert (await client.option(Option.ABORT))[0] == OptionReply.ACK
    assert await client.gone()
    await front.until(Gone)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n", id="another protocol"),
        pytest.param(struct.pack(">I", 0), id="an old client"),
        pytest.param(struct.pack(">I", 0xFFFF), id="flags of the future"),
        pytest.param(struct.pack(">I", 3) + bytes(16), id="no option"),
        pytest.param(struct.pack(">I", 3) + OPTION.pack(IHAVEOPT, Option.GO, 1 << 31), id="a huge option"),
        pytest.param(struct.pack(">I", 3) + OPTION.pack(IHAVEOPT, Option.EXPORT_NAME, 1) + b"x", id="refused by name"),
        pytest.param(struct.pack(">I", 3) + OPTION.pack(IHAVEOPT, 99, 0) * 70, id="no end"),
        pytest.param(struct.pack(">I", 3) + OPTION.pack(IHAVEOPT, Option.GO, 100) + b"half", id="too slow"),
        pytest.param(b"", id="silent"),
    ],
)
async def test_who_does_not_haggle_properly_is_sent_away_and_others_are_served(front: Front, garbage: bytes) -> None:
    client = await front.client()
    client.writer.write(garbage)
    assert await client.gone()
    other = await (await front.client()).greet()
    assert (await other.option(Option.ABORT))[0] == OptionReply.ACK


async def test_more_clients_than_there_may_be_are_sent_away(front: Front) -> None:
    clients = [await (await front.client()).greet() for _ in range(CLIENTS)]
    answers = [(await client.option(Option.STRUCTURED_REPLY))[0] for client in clients]
    assert answers == [OptionReply.ACK] * CLIENTS
    assert await (await front.client()).gone()
    await clients[0].option(Option.ABORT)
    assert await clients[0].gone()
    await (await front.client()).greet()
    assert (await clients[1].option(Option.LIST))[0] == OptionReply.ERR_POLICY


async def test_an_address_that_is_not_there_is_said_and_tried_again(front: Front) -> None:
    front.told.clear()
    front.process.tell(Serve(["127.0.0.1", "203.0.113.1"], 0))
    await front.until(Listening)
    [word] = front.told
    assert isinstance(word, Listening)
    assert word.ports == {"127.0.0.1": front.port}
    assert list(word.failed) == ["203.0.113.1"]
