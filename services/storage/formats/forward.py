"""A stream that is read forward only, and knows where it is."""

from __future__ import annotations

from services.storage.formats.interface import PIECE, Data, FormatError, Input, Truncated


class Forward:
    """`position`: bytes that were taken from the stream."""

    def __init__(self, stream: Input, form: str) -> None:
        """`form`: the format, for messages."""
        self.position = 0
        self._stream = stream
        self._form = form

    async def read(self, length: int, what: str) -> bytes:
        """Exactly so many bytes, at most `PIECE`. Raises `Truncated`, saying that `what` was to be read."""
        try:
            data = await self._stream.read(length)
        except Truncated as error:
            raise self._cut(length, what) from error
        self.position += length
        return data

    async def read_data(self, length: int, what: str) -> Data:
        """As `read`, of what goes to a disk."""
        try:
            data = await self._stream.read_data(length)
        except Truncated as error:
            raise self._cut(length, what) from error
        self.position += length
        return data

    def _cut(self, length: int, what: str) -> Truncated:
        return Truncated(f"{self._form}: the stream ends in {what}, which is {length} bytes at {self.position}")

    async def read_up_to(self, length: int) -> bytes:
        """Fewer only at the end of the stream."""
        parts = []
        while length and (data := await self._stream.read_some(min(length, PIECE))):
            parts.append(data)
            length -= len(data)
            self.position += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_long(self, length: int, what: str) -> bytes:
        """Exactly so many bytes, taken piece by piece: only what really came takes memory."""
        parts = [await self.read(min(PIECE, length - at), what) for at in range(0, length, PIECE)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def skip_to(self, position: int, what: str) -> None:
        """Drops what is before a position. Raises `FormatError` if that has passed already, and `Truncated`."""
        if position < self.position:
            raise FormatError(
                f"{self._form}: {what} is at {position}, before {self.position} where the stream has come to"
            )
        while position > self.position:
            await self.read(min(PIECE, position - self.position), f"the gap before {what}")
