"""qemu-nbd behind a client: what the client asks about its export is asked there, by the name that qemu-nbd has."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

from services.storage.nbd.front.pipe import Pipe
from services.storage.nbd.protocol import (
    FIXED_NEWSTYLE,
    GREETING,
    IHAVEOPT,
    OPTION,
    OPTION_REPLY,
    REPLY_MAGIC,
    Option,
    OptionReply,
    ProtocolError,
)

_NAMELESS = struct.pack(">I", 0)
"""The export's name there, with its length."""
_SIZE_AND_FLAGS, _PADDING = 10, 124
"""Bytes of the answer to EXPORT_NAME; the second for clients that want them."""


class Backend:
    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    @classmethod
    async def connect(cls, socket: str, client_flags: int, *, structured: bool) -> Backend:
        """Raises OSError, `Lost`, ProtocolError."""
        _, pipe = await asyncio.get_running_loop().create_unix_connection(Pipe, socket)
        backend = cls(pipe)
        try:
            _, _, flags = GREETING.unpack(await pipe.take(GREETING.size))
            if not flags & FIXED_NEWSTYLE:
                raise ProtocolError("qemu-nbd does not negotiate")
            pipe.send(struct.pack(">I", client_flags))
            if structured:
                await backend.structured()
        except BaseException:
            pipe.close()
            raise
        return backend

    async def structured(self) -> None:
        """From here on replies may be structured. Raises `Lost`, ProtocolError."""
        async for kind, _ in self.ask(Option.STRUCTURED_REPLY, b""):
            if kind != OptionReply.ACK:
                raise ProtocolError("qemu-nbd does not know structured replies")

    def about(self, option: Option, rest: bytes) -> AsyncIterator[tuple[int, bytes]]:
        """An option that begins with the export's name; `rest` follows it."""
        return self.ask(option, _NAMELESS + rest)

    async def ask(self, option: Option, data: bytes) -> AsyncIterator[tuple[int, bytes]]:
        """The replies (kind, data) to an option, the last one is ACK or an error. Raises `Lost`, ProtocolError."""
        self.pipe.send(OPTION.pack(IHAVEOPT, option, len(data)) + data)
        while True:
            magic, answered, kind, length = OPTION_REPLY.unpack(await self.pipe.take(OPTION_REPLY.size))
            if magic != REPLY_MAGIC or answered != option:
                raise ProtocolError("qemu-nbd does not answer the option that it was asked")
            yield kind, await self.pipe.take(length)
            if kind == OptionReply.ACK or kind >= OptionReply.ERRORS:
                return

    async def begin(self, padded: bool) -> bytes:
        """The answer to EXPORT_NAME, after which requests follow. Raises `Lost`."""
        self.pipe.send(OPTION.pack(IHAVEOPT, Option.EXPORT_NAME, 0))
        return await self.pipe.take(_SIZE_AND_FLAGS + (_PADDING if padded else 0))
