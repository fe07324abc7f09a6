"""An NBD client: a disk to read and write by position, many requests at a time (a `Source` and a `Sink` of formats)."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, Self

from services.storage.formats.interface import PIECE, Data, Extent
from services.storage.nbd import protocol
from services.storage.nbd.address import Address
from services.storage.nbd.protocol import ALLOCATION, Ability, Command, Negotiated, NoSuchExport, Pending, ProtocolError
from services.storage.nbd.wire import Wire

IN_FLIGHT: Final = 16
"""Requests that may wait for the server; those after them wait here. As many as QEMU's works on at once."""
_LARGEST: Final = 1 << 30
"""Bytes of one request that carries no data."""
_READS_AS_ZEROS = 1 << 1


class NbdError(OSError):
    """The server refused a request, or is gone. `errno`: as the server said, EIO where there is no number for it."""


class NbdClient:
    """One connection. Positions and lengths are bytes; requests are independent of each other: who writes overlapping
    ranges waits for the first before the second. Methods raise `NbdError`.
    """

    def __init__(self, wire: Wire, export: Negotiated) -> None:
        self._wire, self._export = wire, export
        self._pending: dict[int, Pending] = {}
        self._cookie = 0
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._serving = wire.run(protocol.replies(self._pending))
        wire.lost.add_done_callback(self._lost)

    @classmethod
    async def connect(
        cls,
        address: Address,
        *,
        contexts: Sequence[str] = (ALLOCATION,),
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> Self:
        """`contexts`: what `extents` and `status` can tell, as far as the server can. `tls`: required of the server.

        Raises `NbdError`.
        """
        loop = asyncio.get_running_loop()
        wire: Wire | None = None
        try:
            if address.path:
                _, wire = await loop.create_unix_connection(Wire, address.path)
            else:
                _, wire = await loop.create_connection(Wire, address.host, address.port)
            await wire.run(protocol.greet(wire.send))
            if tls is not None:
                await wire.run(protocol.start_tls(wire.send))
                await wire.secure(tls, server_name or address.host or "localhost")
            return cls(wire, await wire.run(protocol.choose(wire.send, address.export, contexts)))
        except (OSError, ProtocolError) as error:
            if wire is not None:
                wire.close()
            raise _translated(error, f"cannot open {address}") from error
        except BaseException:
            if wire is not None:
                wire.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """What waits for a reply fails. Nothing that was written is taken back."""
        if not self._wire.lost.done():
            self._wire.send(protocol.request(Command.DISCONNECT, 0))
            self._wire.close()
        await asyncio.wait([self._wire.lost])

    # ---- what the export is

    @property
    def size(self) -> int:
        return self._export.size

    @property
    def writable(self) -> bool:
        return Ability.READ_ONLY not in self._export.abilities

    @property
    def contexts(self) -> frozenset[str]:
        return frozenset(self._export.contexts.values())

    # ---- reading

    async def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        await self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the buffer, which must be left alone until then, and after a cancellation or failure for ever."""
        await self._ask(Command.READ, offset, len(buffer), into=buffer)

    async def extents(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Extent]:
        """The range in order, neighbours of one kind joined; one that may hold data throughout if the server cannot
        tell.
        """
        length = self.size - offset if length is None else length
        if ALLOCATION not in self.contexts:
            if length:
                yield Extent(offset, length, False)
            return
        last: Extent | None = None
        async for position, size, flags in self.status(ALLOCATION, offset, length):
            zero = bool(flags & _READS_AS_ZEROS)
            if last is not None and last.zero == zero:
                last = Extent(last.offset, last.length + size, zero)
            else:
                if last is not None:
                    yield last
                last = Extent(position, size, zero)
        if last is not None:
            yield last

    async def status(self, context: str, offset: int, length: int) -> AsyncIterator[tuple[int, int, int]]:
        """(offset, length, flags) of a metadata context, without gaps."""
        number = next((key for key, name in self._export.contexts.items() if name == context), None)
        if number is None:
            raise NbdError(errno.EOPNOTSUPP, f"the NBD server does not tell {context}")
        end = offset + length
        while offset < end:
            wanted = min(end - offset, _LARGEST)
            answer = await self._ask(Command.BLOCK_STATUS, offset, wanted)
            before = offset
            for size, flags in answer.statuses.get(number, []):
                size = min(size, end - offset)
                if size:
                    yield offset, size, flags
                offset += size
            if offset == before:
                raise NbdError(errno.EIO, f"the NBD server tells nothing about {wanted} bytes at {offset}")

    # ---- writing

    async def write(self, offset: int, data: Data) -> None:
        """Of any length; the data is sent when there is room for the request, in pieces."""
        view = memoryview(data)
        if len(view) <= PIECE:
            await self._ask(Command.WRITE, offset, len(view), data=view)
            return
        for begin in range(0, len(view), PIECE):
            part = view[begin : begin + PIECE]
            await self._ask(Command.WRITE, offset + begin, len(part), data=part)

    async def zero(self, offset: int, length: int) -> None:
        """Space is given back where the server can."""
        if Ability.WRITE_ZEROES not in self._export.abilities:
            for begin in range(0, length, PIECE):
                await self.write(offset + begin, bytes(min(PIECE, length - begin)))
            return
        await self._ranges(Command.WRITE_ZEROES, offset, length)

    async def trim(self, offset: int, length: int) -> None:
        """The content of the range is not needed any more; what it reads as then is open. Nothing where not offered."""
        if Ability.TRIM in self._export.abilities:
            await self._ranges(Command.TRIM, offset, length)

    async def flush(self) -> None:
        """What was answered before is durable."""
        if Ability.FLUSH in self._export.abilities:
            await self._ask(Command.FLUSH, 0, 0)

    async def _ranges(self, command: Command, offset: int, length: int) -> None:
        for begin in range(0, length, _LARGEST):
            await self._ask(command, offset + begin, min(_LARGEST, length - begin))

    # ---- requests

    async def _ask(
        self,
        command: Command,
        offset: int,
        length: int,
        *,
        into: memoryview | None = None,
        data: memoryview | None = None,
    ) -> Pending:
        """One request and its whole reply. Cancelled: the reply is still taken when it comes."""
        if command in (Command.READ, Command.BLOCK_STATUS) and not length:
            return Pending(command, offset, _nobody)
        await self._room.acquire()
        if self._wire.lost.done():
            self._room.release()
            raise _translated(self._wire.lost.result(), _what(command, offset, length))
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: int, text: str) -> None:
            self._room.release()
            if answered.done():
                return
            if error:
                answered.set_exception(_refused(error, text, _what(command, offset, length)))
            else:
                answered.set_result(None)

        self._cookie += 1
        pending = Pending(command, offset, done, into)
        self._pending[self._cookie] = pending
        head = protocol.request(command, self._cookie, offset, length)
        if data is None:
            self._wire.send(head)
        else:
            self._wire.send(head, data)
            await self._wire.drain()
        await answered
        return pending

    def _lost(self, reason: asyncio.Future[Exception]) -> None:
        waiting = list(self._pending.values())
        self._pending.clear()
        for each in waiting:
            each.done(errno.ESHUTDOWN, str(reason.result()))


def _nobody(_: int, __: str) -> None:
    """An empty request waits for nothing."""


def _what(command: Command, offset: int, length: int) -> str:
    return f"NBD {command.name.lower()} of {length} bytes at {offset}"


def _refused(error: int, text: str, what: str) -> NbdError:
    return NbdError(error, f"{what}: {text or os.strerror(error)}")  # NBD's numbers are those of Linux


def _translated(error: Exception, what: str) -> NbdError:
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    if isinstance(error, NoSuchExport):
        number = errno.ENOENT
    return NbdError(number, f"{what}: {error}")
