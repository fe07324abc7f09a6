from __future__ import annotations

import asyncio
from pathlib import Path

from services.vm.console import CLIENT_BACKLOG, REPLAY, Console, RecentOutput
from tests.vm.consoles import ConsoleClient


async def test_a_client_gets_the_last_64_kib_then_what_follows(short_folder: Path) -> None:
    console = Console(short_folder / "c", RecentOutput(), lambda _: None)
    await console.open()
    console.output(b"old" * REPLAY)
    console.output(b"recent")
    client = await ConsoleClient.connect(str(console.path))
    await client.until(b"recent", 5)
    assert len(client.seen) == REPLAY
    console.output(b"live")
    await client.until(b"live", 5)
    await console.close()
    await client.close()
    assert not console.path.exists()


async def test_what_clients_type_reaches_the_guest(short_folder: Path) -> None:
    typed: asyncio.Queue[bytes] = asyncio.Queue()
    console = Console(short_folder / "c", RecentOutput(), typed.put_nowait)
    await console.open()
    clients = [await ConsoleClient.connect(str(console.path)) for _ in range(2)]
    for number, client in enumerate(clients):
        client.type(b"%d" % number)
        assert await asyncio.wait_for(typed.get(), 5) == b"%d" % number
    await console.close()
    for client in clients:
        await client.close()


async def test_a_client_that_does_not_read_is_cut_off_and_the_others_go_on(short_folder: Path) -> None:
    console = Console(short_folder / "c", RecentOutput(), lambda _: None)
    await console.open()
    lazy_reader, lazy = await asyncio.open_unix_connection(str(console.path), limit=1024)
    reader = await ConsoleClient.connect(str(console.path))
    console.output(b"hello")
    await reader.until(b"hello", 5)
    for number in range(8 * CLIENT_BACKLOG // 65536):
        console.output(b"x" * 65536 + b"%d;" % number)
        await reader.until(b"x%d;" % number, 5)
        reader.seen = b""
    received = 0
    async with asyncio.timeout(5):
        while data := await lazy_reader.read(2**20):
            received += len(data)
    assert received < 4 * CLIENT_BACKLOG
    lazy.close()
    await reader.close()
    await console.close()
