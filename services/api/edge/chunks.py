"""A body in HTTP's chunks (RFC 9112, 7.1): for uploads of a length that nobody knows beforehand."""

from __future__ import annotations

import asyncio
from typing import Final

from shared.errors import ApiError, internal_error

_LINE: Final = 4096
"""Bytes of the longest line; extensions and trailers are allowed, and nobody reads them."""


class Chunks:
    """`reader`: the connection, just behind the request's head."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._left = 0
        self._begun = False
        self.ended = False

    async def read(self, most: int) -> bytes:
        """b"" at the end of the body. Raises INTERNAL_ERROR for what is not chunks, or ends before they do."""
        if not self._left and not self.ended:
            await self._next()
        if self.ended:
            return b""
        data = await self._reader.read(min(most, self._left))
        if not data:
            raise _cut()
        self._left -= len(data)
        return data

    async def _next(self) -> None:
        if self._begun and await self._line():
            raise internal_error("a chunk of the body is longer than it says")
        self._begun = True
        size = (await self._line()).partition(b";")[0].strip()
        if not size or len(size) > 16 or not all(digit in b"0123456789abcdefABCDEF" for digit in size):
            raise internal_error(f"the length of a chunk of the body is {size[:32]!r}")
        self._left = int(size, 16)
        if not self._left:
            while await self._line():
                continue  # trailers
            self.ended = True

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            raise _cut() from None
        except asyncio.LimitOverrunError:
            line = b"?" * (_LINE + 1)
        if len(line) > _LINE:
            raise internal_error("a line between the chunks of the body is too long")
        return line.rstrip(b"\r\n")


def _cut() -> ApiError:
    return internal_error("End_of_file: the body ended before its last chunk")
