"""`/pool/xmldbdump`: the pool's database, as one XML document in the original's format."""

from __future__ import annotations

import asyncio

from services.api.handlers.handler import Request, handler
from shared.database_dump import writer

_STREAM = (("connection", "close"), ("cache-control", "no-cache, no-store"))


@handler("get_pool_xml_db_sync")
async def get_pool_xml_db_sync(request: Request) -> None:
    """All rows at one moment, made while they are sent: nobody knows the length before. Members have them too."""
    taken = writer.moment(request.store)
    await request.stream.start(_STREAM)
    for piece in writer.pieces(taken):
        await request.stream.write(piece)
        await asyncio.sleep(0)  # a client that is quick never makes `write` wait
