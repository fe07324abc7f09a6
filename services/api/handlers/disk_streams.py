"""The bytes of a disk, between a client and the host's storage service: passed on as they come, at the slower's pace.

The transfer is prepared over the bus (`shared.contracts.transfer`); its bytes pass a Unix socket of this host. A client
without TLS is lent to the storage service, so that they need not pass this process. However the request ends, the
transfer has ended before it, and its disks are closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from services.api.api import Api
from services.api.edge.stream import ClientGone, Stream
from services.api.handlers.disk_arguments import host_here
from services.api.handlers.handler import Request
from services.api.host_errors import with_refs
from shared.bus.contract import Method
from shared.bus.interface import Bus
from shared.contracts.loan import RETURNED_SIZE, Lent, Returned
from shared.contracts.transfer import (
    EXPORT,
    IMPORT,
    TRANSFER_CANCEL,
    TRANSFER_END,
    TRANSFERS_ABANDON,
    Begun,
    Export,
    Import,
    Moved,
    Prepared,
    TransferId,
)
from shared.errors import ApiError

log = logging.getLogger("api.disks")

PIECE: Final = 1 << 18
"""Bytes of the largest piece that is passed on."""
BEHIND: Final = 2 << 20
"""Bytes that may wait for the storage service, as far as the kernel admits: it and we need not take turns then."""

OPENING: Final = 10.0
"""Seconds that a disk may still be opened for a transfer that was cancelled meanwhile."""

Message = TypeVar("Message", Export, Import)
Begin = Callable[[Prepared], Awaitable[None]]
"""Sends the head of the reply, once it is clear that the disk can be had."""
Move = Callable[[Stream, socket.socket, asyncio.Future[Moved]], Coroutine[Any, Any, ApiError | None]]
"""Passes everything on; the future is the transfer's end. Returns what is wrong with a body that may be whole all the
same, if the storage service thinks so.
"""


async def send(request: Request, message: Export, begin: Begin) -> None:
    """A disk to the client. Raises how it failed."""
    await _pass_on(request, EXPORT, message, begin, _outwards)


async def receive(request: Request, message: Import, begin: Begin) -> None:
    """A disk from the client. A stream that says itself where it ends may be shorter than was announced."""
    ends_itself = message.format != "raw" or message.chunked
    await _pass_on(request, IMPORT, message, begin, partial(_inwards, ends_itself=ends_itself))


async def abandon(api: Api) -> None:
    """Ends the transfers that earlier processes of this process's hosts have left: their disks are not in use then."""
    begun = Begun(process=api.process)

    async def tell(host: str) -> None:
        try:
            await api.bus.call(TRANSFERS_ABANDON, begun, host=host)
        except ApiError as error:
            log.info("transfers of an earlier process end with their patience, or with the service: %s", error)

    await asyncio.gather(*(tell(host.uuid) for host in api.hosts))


async def _lend(stream: Stream, service: socket.socket) -> None:
    """Raises `ClientGone`, ConnectionError."""
    loan = await stream.lend()
    message = Lent(len(loan.early), -1 if loan.left is None else loan.left, loan.stall).pack()
    socket.send_fds(service, [message], [loan.descriptor])
    await asyncio.get_running_loop().sock_sendall(service, loan.early)


async def _outwards(stream: Stream, service: socket.socket, ended: asyncio.Future[Moved]) -> None:
    """The last piece is kept until the transfer has ended well: who has all bytes finds the disk closed, and can
    destroy it. When the storage service breaks off, how the transfer has ended tells why.

    Raises `ClientGone`, ApiError.
    """
    loop, last = asyncio.get_running_loop(), b""
    while True:
        try:
            data = await loop.sock_recv(service, PIECE)
        except OSError:
            break
        if not data:
            break
        if last:
            await stream.write(last)
        last = data
    await asyncio.shield(ended)
    if last:
        await stream.write(last)


async def _inwards(
    stream: Stream, service: socket.socket, _: asyncio.Future[Moved], *, ends_itself: bool
) -> ApiError | None:
    """When the storage service takes nothing any more, how the transfer has ended tells why.

    `ends_itself`: what comes says where it ends, so one that is cut may be whole. Raises `ClientGone`, INTERNAL_ERROR.
    """
    loop, cut = asyncio.get_running_loop(), None
    while True:
        try:
            data = await stream.read(PIECE)
        except ApiError as error:
            if not ends_itself:
                raise
            cut, data = error, b""
        except ClientGone:
            raise
        except ConnectionError as error:
            raise ClientGone(str(error)) from error
        try:
            if not data:
                service.shutdown(socket.SHUT_WR)
                break
            await loop.sock_sendall(service, data)
        except OSError:
            break
    return cut


async def _taken_back(stream: Stream, service: socket.socket, _: asyncio.Future[Moved]) -> ApiError | None:
    """After an import from a client that was lent. A storage service that was killed tells nothing."""
    try:
        data = await asyncio.get_running_loop().sock_recv(service, RETURNED_SIZE)
    except OSError:
        return None
    return stream.returned(*Returned.unpack(data)) if len(data) == RETURNED_SIZE else None


async def _pass_on(
    request: Request, method: Method[Message, Prepared], message: Message, begin: Begin, move: Move
) -> None:
    bus, host = request.api.bus, request.api.uuid_of("host", host_here(request))
    lent = request.stream.hold()
    try:
        prepared = await _prepared(bus, method, replace(message, lent=lent, process=request.api.process), host)
        transfer = TransferId(transfer=prepared.transfer)
        ended: asyncio.Future[Moved] = asyncio.ensure_future(bus.call(TRANSFER_END, transfer, host=host))
        try:
            await _moved(request.stream, prepared, begin, move, ended, lent)
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


async def _prepared(bus: Bus, method: Method[Message, Prepared], message: Message, host: str) -> Prepared:
    """When this is cancelled, the disk that was being opened meanwhile is closed first: who cancels an upload destroys
    the disk next. A plug-in that takes too long is given up instead.
    """
    preparing = asyncio.ensure_future(bus.call(method, message, host=host))
    try:
        return await asyncio.shield(preparing)
    except asyncio.CancelledError:
        await settled(_undone(bus, preparing, host))
        raise


async def _undone(bus: Bus, preparing: asyncio.Future[Prepared], host: str) -> None:
    try:
        async with asyncio.timeout(OPENING):
            transfer = TransferId(transfer=(await preparing).transfer)
        await bus.call(TRANSFER_CANCEL, transfer, host=host)
    except TimeoutError:
        log.warning("a disk is still being opened for a transfer that was cancelled %s s ago", OPENING)
    except ApiError as error:
        log.info("a transfer that was cancelled had not begun: %s", error)


async def _moved(
    stream: Stream, prepared: Prepared, begin: Begin, move: Move, ended: asyncio.Future[Moved], lent: bool
) -> None:
    """Until both sides are through. What the storage service says of the transfer counts."""
    with socket.socket(socket.AF_UNIX) as service:
        service.setblocking(False)
        service.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BEHIND)
        await asyncio.get_running_loop().sock_connect(service, prepared.path)
        await begin(prepared)
        if lent:
            await _lend(stream, service)
            if move is not _outwards:
                move = _taken_back
        moving = asyncio.ensure_future(move(stream, service, ended))
        try:
            both: list[asyncio.Future[Any]] = [moving, ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            on_its_way = move is _taken_back or (move is _outwards and not (ended.done() and ended.exception()))
            cut = await moving if moving.done() or on_its_way else None
            try:
                await asyncio.shield(ended)
            except ApiError as error:
                raise cut or error from None
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)


async def settled(work: Awaitable[object]) -> None:
    """Waits for the end of it, also when this is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
