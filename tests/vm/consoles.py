"""Reading a console in tests."""

from __future__ import annotations

import asyncio


class ConsoleClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.seen = b""

    @classmethod
    async def connect(cls, path: str) -> ConsoleClient:
        return cls(*await asyncio.open_unix_connection(path))

    async def until(self, text: bytes, timeout: float = 60.0) -> bytes:
        """Reads until the text has come; everything that came so far."""
        async with asyncio.timeout(timeout):
            while text not in self.seen:
                data = await self._reader.read(65536)
                assert data, f"the console was closed after {self.seen[-500:]!r}"
                self.seen += data
        return self.seen

    def type(self, text: bytes) -> None:
        self._writer.write(text)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()
