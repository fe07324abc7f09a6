"""The server's side of NBD's negotiation, up to where requests follow (NetworkBlockDevice/nbd, doc/proto.md).

Who the client is, TLS, and which export it gets are decided here; what the export is like is asked of qemu-nbd.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from services.storage.nbd.front.backend import Backend
from services.storage.nbd.front.pipe import Lost, Pipe
from services.storage.nbd.front.words import Opened, Refused
from services.storage.nbd.protocol import (
    FIXED_NEWSTYLE,
    GREETING,
    IHAVEOPT,
    NBDMAGIC,
    NO_ZEROES,
    OPTION,
    OPTION_REPLY,
    REPLY_MAGIC,
    Option,
    OptionReply,
    ProtocolError,
)

Ask = Callable[[str], Awaitable[Opened | Refused]]
"""Opens the export of that name."""

_LONGEST: Final = 16 << 10
"""Bytes that an option carries: a name, and what is asked about it."""
_LONGEST_NAME: Final = 4096
"""Bytes, as the protocol has it."""
_MOST: Final = 64
"""Options of one client."""
_INFO_NAME: Final = struct.pack(">H", 1)
"""The kind of what tells an export's name: the client knows it, and qemu-nbd has another one."""
_KINDS: Final = {"unknown": OptionReply.ERR_UNKNOWN, "denied": OptionReply.ERR_POLICY}


class NoExport(Exception):
    """What the client asked for is not given."""

    def __init__(self, kind: int, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


class Haggling:
    """One client. `tls`: None to serve without. `within`: seconds that the client may take for all it says."""

    def __init__(self, client: Pipe, tls: ssl.SSLContext | None, ask: Ask, within: float) -> None:
        self._client, self._tls, self._ask = client, tls, ask
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + within
        self._secured = False
        self._structured = False
        self._padded = True
        self._flags = FIXED_NEWSTYLE
        self._name: bytes | None = None
        self._backend: Backend | None = None

    async def run(self) -> Pipe | None:
        """qemu-nbd's end, when requests follow; None when the client has enough. Raises `Lost`, ProtocolError,
        TimeoutError.
        """
        joined = None
        try:
            await self._greet()
            for _ in range(_MOST):
                magic, option, length = OPTION.unpack(await self._take(OPTION.size))
                if magic != IHAVEOPT:
                    raise ProtocolError("what should be an option is none")
                if length > _LONGEST:
                    raise ProtocolError(f"an option of {length} bytes")
                data = await self._take(length)
                if option == Option.ABORT:
                    self._reply(option, OptionReply.ACK)
                    return None
                if await self._answer(option, data):
                    assert self._backend is not None
                    joined = self._backend.pipe
                    return joined
            raise ProtocolError("it haggles for ever")
        finally:
            if joined is None and self._backend is not None:
                self._backend.pipe.close()

    async def _greet(self) -> None:
        self._client.send(GREETING.pack(NBDMAGIC, IHAVEOPT, FIXED_NEWSTYLE | NO_ZEROES))
        self._flags = int.from_bytes(await self._take(4))
        if self._flags not in (FIXED_NEWSTYLE, FIXED_NEWSTYLE | NO_ZEROES):
            raise ProtocolError(f"the client's flags are {self._flags:#x}")
        self._padded = not self._flags & NO_ZEROES

    async def _answer(self, option: int, data: bytes) -> bool:
        """Whether requests follow."""
        if self._tls is not None and not self._secured and option != Option.STARTTLS:
            if option == Option.EXPORT_NAME:  # which can only be refused by hanging up
                raise ProtocolError("it wants an export without TLS")
            self._reply(option, OptionReply.ERR_TLS_REQD, "TLS is required here")
            return False
        try:
            match option:
                case Option.EXPORT_NAME:
                    self._client.send(await (await self._open(data)).begin(self._padded))
                    return True
                case Option.STARTTLS:
                    await self._start_tls(data)
                case Option.LIST:
                    raise NoExport(OptionReply.ERR_POLICY, "exports are not listed; VDI.get_nbd_info names them")
                case Option.STRUCTURED_REPLY:
                    await self._structure(data)
                case Option.INFO | Option.GO | Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                    return await self._relay(Option(option), data)
                case _:
                    raise NoExport(OptionReply.ERR_UNSUP, "")
        except NoExport as refusal:
            if option == Option.EXPORT_NAME:
                raise ProtocolError(f"it gets no export: {refusal.text}") from refusal
            self._reply(option, refusal.kind, refusal.text)
        return False

    async def _start_tls(self, data: bytes) -> None:
        if data or self._secured:
            raise NoExport(OptionReply.ERR_INVALID, "TLS has begun already" if self._secured else "")
        if self._tls is None:
            raise NoExport(OptionReply.ERR_POLICY, "there is no TLS here")
        if self._client.ahead:  # what came before the handshake would count as if it had come inside
            raise ProtocolError("it talks on where TLS should begin")
        self._reply(Option.STARTTLS, OptionReply.ACK)
        await self._client.secure(self._tls, max(self._deadline - self._loop.time(), 0.001))
        self._secured = True

    async def _structure(self, data: bytes) -> None:
        if data:
            raise NoExport(OptionReply.ERR_INVALID, "")
        if self._backend is not None and not self._structured:
            await self._backend.structured()
        self._structured = True
        self._reply(Option.STRUCTURED_REPLY, OptionReply.ACK)

    async def _relay(self, option: Option, data: bytes) -> bool:
        length = int.from_bytes(data[:4])
        name, rest = data[4 : 4 + length], data[4 + length :]
        if len(data) < 4 or len(name) < length:
            raise NoExport(OptionReply.ERR_INVALID, "the option is shorter than the name in it")
        if option == Option.SET_META_CONTEXT and not self._structured:
            raise NoExport(OptionReply.ERR_INVALID, "structured replies come first")
        kind = 0
        async for kind, answer in (await self._open(name)).about(option, rest):
            if kind != OptionReply.INFO or answer[:2] != _INFO_NAME:
                self._reply(option, kind, answer)
        return option == Option.GO and kind == OptionReply.ACK

    async def _open(self, name: bytes) -> Backend:
        """The client's time stands still meanwhile. Raises `NoExport`, `Lost`, ProtocolError."""
        if self._backend is not None:
            if name != self._name:
                raise NoExport(OptionReply.ERR_POLICY, "one connection, one export")
            return self._backend
        if len(name) > _LONGEST_NAME:
            raise NoExport(OptionReply.ERR_INVALID, "the name is too long")
        begin = self._loop.time()
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise NoExport(OptionReply.ERR_UNKNOWN, "there is no such export") from None
        opened = await self._ask(text)
        if isinstance(opened, Refused):
            raise NoExport(_KINDS[opened.why], opened.text)
        try:
            backend = await Backend.connect(opened.socket, self._flags, structured=self._structured)
        except OSError as error:
            raise Lost from error
        self._backend = backend
        self._client.lost.add_done_callback(lambda _: backend.pipe.close())  # nobody waits for its answers any more
        self._name = name
        self._deadline += self._loop.time() - begin
        return self._backend

    async def _take(self, length: int) -> bytes:
        async with asyncio.timeout_at(self._deadline):
            return await self._client.take(length)

    def _reply(self, option: int, kind: int, data: bytes | str = b"") -> None:
        body = data.encode() if isinstance(data, str) else data
        self._client.send(OPTION_REPLY.pack(REPLY_MAGIC, option, kind, len(body)) + body)
