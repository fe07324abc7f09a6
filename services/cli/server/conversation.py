"""A conversation with one thin client: frames out, answers in. Whoever carries the bytes is elsewhere."""

from __future__ import annotations

import asyncio

from services.cli.protocol import (
    MAX_LOAD,
    OK,
    Answer,
    Chunk,
    Command,
    End,
    Failed,
    Load,
    Prompt,
    ProtocolError,
    Wait,
    decode,
    encode,
    frame_size,
)

MAX_ANSWER = 64 * 1024
"""Bytes of a client's frame: its answers are small, files come as raw bytes behind them."""
MAX_UNREAD = MAX_LOAD + 1024 * 1024
"""Bytes a client may have sent ahead of being asked."""
MAX_PROMPT = 64 * 1024
BATCH = 256 * 1024
"""Bytes of frames that travel together."""
_QUEUED = 256
"""Frames waiting to be carried before the command has to wait."""


class ClientGone(Exception):
    """The client has closed the connection, or no longer speaks the protocol."""


class Conversation:
    """Implements `Terminal`. `feed` and `hang_up` come from the client, `outgoing` goes to it."""

    def __init__(self) -> None:
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._in = bytearray()
        self._arrived = asyncio.Event()
        self.gone = asyncio.Event()

    # ---- the carrier's side

    def feed(self, data: bytes) -> None:
        self._in += data
        if len(self._in) > MAX_UNREAD:
            self.hang_up()
        self._arrived.set()

    def hang_up(self) -> None:
        self.gone.set()
        self._arrived.set()

    async def outgoing(self) -> bytes | None:
        """The next frames, as many as are ready; None when all has been said."""
        data = await self._out.get()
        self._room.set()
        if data is None:
            return None
        parts, size = [data], len(data)
        while size < BATCH and not self._out.empty():
            more = self._out.get_nowait()
            if more is None:
                self._out.put_nowait(None)
                break
            parts.append(more)
            size += len(more)
        return b"".join(parts)

    def close(self) -> None:
        """Nothing more will be said."""
        self._out.put_nowait(None)

    # ---- the command's side

    async def send(self, message: Command) -> None:
        while self._out.qsize() >= _QUEUED:
            self._room.clear()
            await self._room.wait()
        self._out.put_nowait(encode(message))

    async def prompt(self) -> str:
        await self.send(Prompt())
        return (await self._blob(MAX_PROMPT)).decode("utf-8", "surrogateescape")

    async def load(self, filename: str) -> bytes | None:
        await self.send(Load(filename))
        if isinstance(await self._answer(OK, Failed), Failed):
            return None
        return await self._blob(MAX_LOAD)

    async def transfer(self, message: Command) -> bool:
        await self.send(message)
        return isinstance(await self._answer(OK, Failed), OK)

    async def _blob(self, limit: int) -> bytes:
        data = b""
        while isinstance(chunk := await self._answer(Chunk, End), Chunk):
            if chunk.size < 0 or len(data) + chunk.size > limit:
                raise ProtocolError(f"the client sends more than {limit} bytes")
            data += await self._exactly(chunk.size)
        return data

    async def _answer(self, *expected: type[Answer]) -> Answer:
        """The next answer that is not a sign of life."""
        while True:
            message = decode(await self._exactly(frame_size(await self._exactly(4), MAX_ANSWER)))
            if isinstance(message, expected):
                return message
            if not isinstance(message, Wait):
                raise ProtocolError(f"the client sent {message!r}")

    async def _exactly(self, size: int) -> bytes:
        while len(self._in) < size:
            if self.gone.is_set():
                raise ClientGone
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._in[:size])
        del self._in[:size]
        return data
