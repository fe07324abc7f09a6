"""The bytes of a disk, between a client and the host's storage service: passed on as they come, at the slower's pace.

The transfer is prepared over the bus (`shared.contracts.transfer`); its bytes pass a Unix socket of this host. However
the request ends, the transfer has ended before it, and its disks are closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from services.api.edge.stream import ClientGone, Stream
from services.api.handlers.disk_arguments import host_here
from services.api.handlers.handler import Request
from services.api.host_errors import with_refs
from shared.bus.contract import Method
from shared.contracts.transfer import (
    EXPORT,
    IMPORT,
    TRANSFER_CANCEL,
    TRANSFER_END,
    Export,
    Import,
    Moved,
    Prepared,
    TransferId,
)
from shared.errors import ApiError

log = logging.getLogger("api.disks")

PIECE: Final = 1 << 20
"""Bytes of the largest piece that is passed on."""

Message = TypeVar("Message", Export, Import)
Begin = Callable[[Prepared], Awaitable[None]]
"""Sends the head of the reply, once it is clear that the disk can be had."""
Move = Callable[[Stream, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def send(request: Request, message: Export, begin: Begin) -> None:
    """A disk to the client. Raises how it failed."""
    await _pass_on(request, EXPORT, message, begin, _outwards)


async def receive(request: Request, message: Import, begin: Begin) -> None:
    """A disk from the client. A stream that says itself where it ends may be shorter than was announced."""
    await _pass_on(request, IMPORT, message, begin, _inwards)


async def _outwards(stream: Stream, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        await stream.write(data)


async def _inwards(stream: Stream, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """When the storage service takes nothing any more, how the transfer has ended tells why.

    Raises `ClientGone`; INTERNAL_ERROR for a body that was cut, after all that came was passed on.
    """
    cut: ApiError | None = None
    while True:
        try:
            data = await stream.read(PIECE)
        except ApiError as error:
            cut, data = error, b""
        except ClientGone:
            raise
        except ConnectionError as error:
            raise ClientGone(str(error)) from error
        try:
            if not data:
                writer.write_eof()
                break
            writer.write(data)
            await writer.drain()
        except ConnectionError:
            break
    if cut is not None:
        raise cut


async def _pass_on(
    request: Request, method: Method[Message, Prepared], message: Message, begin: Begin, move: Move
) -> None:
    bus, host = request.api.bus, request.api.uuid_of("host", host_here(request))
    try:
        prepared = await bus.call(method, message, host=host)
        transfer = TransferId(transfer=prepared.transfer)
        ended: asyncio.Future[Moved] = asyncio.ensure_future(bus.call(TRANSFER_END, transfer, host=host))
        try:
            await _moved(request.stream, prepared, begin, move, ended)
        finally:
            if not ended.done():
                ended.cancel()
                try:
                    await settled(bus.call(TRANSFER_CANCEL, transfer, host=host))
                except ApiError as error:
                    log.warning("a transfer goes on until it misses its client: %s", error)
            await asyncio.gather(ended, return_exceptions=True)
    except ApiError as error:
        raise with_refs(request.store, error) from None


async def _moved(stream: Stream, prepared: Prepared, begin: Begin, move: Move, ended: asyncio.Future[Moved]) -> None:
    """Until both sides are through. What the storage service says of the transfer counts."""
    reader, writer = await asyncio.open_unix_connection(prepared.path, limit=PIECE)
    try:
        await begin(prepared)
        moving = asyncio.ensure_future(move(stream, reader, writer))
        try:
            both: list[asyncio.Future[Any]] = [moving, ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if move is _outwards and not (ended.done() and ended.exception()):
                await moving  # what is on its way still comes
            if moving.done() and isinstance(moving.exception(), ClientGone):
                moving.result()
            try:
                await asyncio.shield(ended)
            except ApiError:
                if moving.done():
                    moving.result()  # a cut body is the reason for whatever the storage service makes of it
                raise
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
    finally:
        writer.close()


async def settled(work: Awaitable[object]) -> None:
    """Waits for the end of it, also when this is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
