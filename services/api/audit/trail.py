"""The audit log of a process: lines are noted at once and written in batches, by a thread.

Nobody waits for the disk. A clean stop writes everything; a process that is killed loses what it noted in its last
moments. While nothing can be written (a full disk), lines are kept in memory and written later.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from services.api.audit.line import is_since, since_key
from services.api.audit.rotating import RotatingFile

log = logging.getLogger("api.audit")

PATIENCE: Final = 1.0
"""Seconds between two attempts to write."""

MOST: Final = 50_000
"""Lines kept while nothing can be written; the oldest of more are lost, and a line says how many."""

BATCH: Final = 2000
"""Lines written at once."""

PIECE: Final = 256 * 1024
"""Bytes of lines that are read at once."""


Forward = Callable[[list[str]], Awaitable[bool]]


class Trail:
    """`lost`: makes the line that tells of so many lost ones. `forward`: offers lines to somebody who keeps the log for
    all; what he does not take is written here.
    """

    def __init__(self, file: RotatingFile, lost: Callable[[int], str], forward: Forward | None = None) -> None:
        self._file = file
        self._forward = forward
        self._lost_line = lost
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._waiting: deque[str] = deque()
        self._lost = 0
        self._noted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._closed = False
        self._troubled = False

    def note(self, line: str) -> None:
        """Adds a line. After `close` it is written before this returns, so that the last ones are not lost."""
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(line)
        self._noted.set()
        if self._closed:
            self._write_the_rest()

    async def run(self) -> None:
        """Writes what is noted, for as long as the process lives."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            if not await self.flush():
                await asyncio.sleep(PATIENCE)
                self._noted.set()

    async def flush(self) -> bool:
        """Writes what has been noted so far; whether it could."""
        async with self._writing:
            while self._waiting:
                if not await self._write_batch():
                    return False
        return True

    async def _write_batch(self) -> bool:
        lines = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        lost, self._lost = self._lost, 0
        if self._forward is not None and await self._offer(lines):
            return True
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._file.write, self._joined(lost, lines))
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            await asyncio.wait({work})
            self._settle(work, lines, lost)
            raise
        return self._settle(work, lines, lost)

    async def _offer(self, lines: list[str]) -> bool:
        assert self._forward is not None
        try:
            return await self._forward(lines)
        except asyncio.CancelledError:
            self._waiting.extendleft(reversed(lines))
            raise

    def _settle(self, work: asyncio.Future[None], lines: list[str], lost: int) -> bool:
        error = work.exception()
        if error is None:
            if self._troubled:
                log.info("the audit log is written again")
            self._troubled = False
            return True
        self._lost += lost
        self._waiting.extendleft(reversed(lines))
        if not isinstance(error, OSError):
            raise error
        if not self._troubled:
            log.error("the audit log cannot be written: %s", error)
        self._troubled = True
        return False

    def _joined(self, lost: int, lines: list[str]) -> bytes:
        told = [self._lost_line(lost)] if lost else []
        return "".join(f"{line}\n" for line in (*told, *lines)).encode("utf-8", "replace")

    async def close(self) -> None:
        """Writes everything; then the file is on the disk."""
        await self.flush()
        self._closed = True
        self._write_the_rest()
        self._thread.shutdown()

    def _write_the_rest(self) -> None:
        try:
            self._file.write(self._joined(self._lost, list(self._waiting)))
            self._waiting.clear()
            self._lost = 0
            self._file.close()
        except OSError as error:
            log.error("%d lines of the audit log are lost: %s", len(self._waiting) + self._lost, error)

    # ---- reading

    async def since(self, moment: str) -> AsyncIterator[bytes]:
        """The log from `moment` on (`20250102T03:04:05`, or any beginning of that; "" for all of it), in pieces."""
        await self.flush()
        loop, key = asyncio.get_running_loop(), since_key(moment).encode()
        files = await loop.run_in_executor(self._thread, self._file.opened)
        try:
            for file in files:
                while lines := await asyncio.to_thread(file.readlines, PIECE):
                    wanted = b"".join(lines) if not key else await asyncio.to_thread(_selected, lines, key)
                    if wanted:
                        yield wanted
        finally:
            for file in files:
                file.close()


def _selected(lines: list[bytes], key: bytes) -> bytes:
    return b"".join(line for line in lines if is_since(line, key))
