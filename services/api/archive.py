"""Archives that are made while they are sent: nothing is written to the disk, and no more than a piece is held.

The archive modules of Python write synchronously, so one runs in a thread of its own and waits there for the client.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

PIECE: Final = 256 * 1024
"""Bytes that go to the client at once."""
THREADS: Final = 4
"""Archives made at the same time; more of them wait."""

Format = Literal["tar", "tar.gz", "tar.bz2", "zip"]
Send = Callable[[bytes], Awaitable[None]]

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive. `content`: bytes, or a file, of which goes in what it holds when its turn comes."""

    name: str
    content: bytes | Path

    @contextmanager
    def open(self) -> Iterator[tuple[Readable, int, float] | None]:
        """The content, its size, its time; None for a file that has gone. The size stays right if it shrinks."""
        if isinstance(self.content, bytes):
            yield io.BytesIO(self.content), len(self.content), time.time()
            return
        try:
            file = self.content.open("rb")
        except OSError:
            yield None
            return
        with file:
            status = os.fstat(file.fileno())
            yield _Exactly(file, status.st_size), status.st_size, status.st_mtime


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Exactly:
    """So many bytes of a file, whatever happens to it: NUL bytes if there are not so many any more."""

    def __init__(self, file: Readable, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int, /) -> bytes:
        wanted = min(size, self._left)
        self._left -= wanted
        return self._file.read(wanted).ljust(wanted, b"\0")


class Abandoned(Exception):
    """Nobody wants the rest."""


class _Outlet:
    """A file, for the thread, that sends what is written to it in pieces, and waits until each is sent."""

    def __init__(self, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        self._send = send
        self._loop = loop
        self._waiting = bytearray()
        self.abandoned = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._waiting += data
        if len(self._waiting) >= PIECE:
            self.send()
        return len(data)

    def flush(self) -> None:
        """Pieces are worth waiting for."""

    def send(self) -> None:
        """Sends what there is."""
        if self.abandoned:
            raise Abandoned
        piece = bytes(self._waiting)
        self._waiting.clear()
        if piece:
            asyncio.run_coroutine_threadsafe(_awaited(self._send(piece)), self._loop).result()


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def send(format_: Format, members: Iterable[Member], send: Send) -> None:
    """Sends the archive piece by piece. Raises what `send` raises."""
    loop = asyncio.get_running_loop()
    outlet = _Outlet(send, loop)
    try:
        await loop.run_in_executor(_threads, _write, format_, members, outlet)
    finally:
        outlet.abandoned = True  # if this was cancelled, the thread ends with its next piece


def _write(format_: Format, members: Iterable[Member], outlet: _Outlet) -> None:
    if format_ == "zip":
        _write_zip(members, outlet)
    else:
        _write_tar(format_, members, outlet)
    outlet.send()


_TAR: Final = {"tar": "w|", "tar.gz": "w|gz", "tar.bz2": "w|bz2"}


def _write_tar(format_: Format, members: Iterable[Member], outlet: _Outlet) -> None:
    with tarfile.open(fileobj=outlet, mode=_TAR[format_], bufsize=PIECE) as archive:  # type: ignore[call-overload]
        for member in members:
            with member.open() as opened:
                if opened is not None:
                    content, size, changed = opened
                    info = tarfile.TarInfo(member.name)
                    info.size, info.mtime, info.mode = size, int(changed), 0o640
                    archive.addfile(info, content)


def _write_zip(members: Iterable[Member], outlet: _Outlet) -> None:
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        for member in members:
            with member.open() as opened:
                if opened is not None:
                    content, size, changed = opened
                    info = zipfile.ZipInfo(member.name, time.gmtime(changed)[:6])
                    info.compress_type = zipfile.ZIP_DEFLATED
                    with archive.open(info, "w", force_zip64=size > 2**31) as out:
                        while data := content.read(PIECE):
                            out.write(data)
