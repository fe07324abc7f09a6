"""`python -m services.storage.nbd.front`, started by the storage service: see `words` for what is said."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvloop

from services.storage.nbd.front.clients import HAGGLE_WITHIN, Clients
from services.storage.nbd.front.words import Order, Serve, Told, pack, unpack


async def main() -> None:
    """Ends when its standard input does."""

    def tell(word: Told) -> None:
        sys.stdout.buffer.write(pack(word))
        sys.stdout.buffer.flush()

    clients = Clients(tell, float(sys.argv[1]) if len(sys.argv) > 1 else HAGGLE_WITHIN)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async for line in orders:
        order: Order = unpack(line)
        if isinstance(order, Serve):
            tell(await clients.serve(order))
        else:
            clients.answer(order)


logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
uvloop.run(main())
