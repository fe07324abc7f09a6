"""The content of blobs: one file each, named by uuid, in the coordinator's state folder.

A file is replaced as a whole: a new one is written beside it, made durable, and renamed. So whatever ends a write, a
full disk or a crash, the old content stays. A file follows its row: it goes when the row is removed, or at the next
start.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import re
import shutil
import uuid as uuids
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Final

from shared.errors import internal_error

log = logging.getLogger("api.blobs")

RESERVE: Final = 256 * 1024 * 1024
"""Bytes of the disk that blobs leave to others: the database's log may be on the same one."""

_NAME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class BlobFiles:
    """`folder` is made when it is first needed. What may wait for the disk runs in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more can be taken, as far as the disk says now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._folder).free >= size + RESERVE

    @contextlib.asynccontextmanager
    async def open(self, uuid: str) -> AsyncIterator[io.BufferedReader | None]:
        """The content, to be read; None if nothing was ever put there."""
        try:
            file = await asyncio.to_thread(self._path(uuid).open, "rb")
        except FileNotFoundError:
            yield None
            return
        with file:
            yield file

    @contextlib.asynccontextmanager
    async def replacement(self, uuid: str) -> AsyncIterator[Replacement]:
        """A new content, of which nothing is left unless it is installed."""
        new = self._folder / f"{uuid}.{uuids.uuid4().hex}.new"
        file = await asyncio.to_thread(self._create, new)
        try:
            with file:
                yield Replacement(file, new, self._path(uuid))
        finally:
            await asyncio.to_thread(new.unlink, missing_ok=True)

    def _create(self, path: Path) -> io.FileIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        return io.FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    def remove(self, uuid: str) -> None:
        if _NAME.fullmatch(uuid):
            self._path(uuid).unlink(missing_ok=True)

    def sweep(self, known: Collection[str]) -> dict[str, int]:
        """Removes what belongs to no blob (uuids); the sizes of those that have content. For the start: it blocks."""
        sizes: dict[str, int] = {}
        if not self._folder.is_dir():
            return sizes
        for path in self._folder.iterdir():
            if path.name in known:
                sizes[path.name] = path.stat().st_size
            elif _NAME.match(path.name):
                log.info("removing %s, which belongs to no blob", path.name)
                path.unlink()
        return sizes

    def _path(self, uuid: str) -> Path:
        if not _NAME.fullmatch(uuid):
            raise ValueError(f"{uuid!r} is not a uuid")
        return self._folder / uuid


class Replacement:
    """A content on its way. `size`: bytes so far."""

    def __init__(self, file: io.FileIO, new: Path, final: Path) -> None:
        self._file, self._new, self._final = file, new, final
        self.size = 0

    async def write(self, data: bytes) -> None:
        """Raises INTERNAL_ERROR, as for a disk that is full."""
        await _to_disk(self._write, data)
        self.size += len(data)

    async def install(self) -> None:
        """Durable, and in place of the old one. Raises INTERNAL_ERROR."""
        await _to_disk(self._install)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def _install(self) -> None:
        os.fsync(self._file.fileno())
        os.replace(self._new, self._final)
        folder = os.open(self._final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


async def _to_disk(work: Callable[..., None], *arguments: object) -> None:
    try:
        await asyncio.to_thread(work, *arguments)
    except OSError as error:
        raise internal_error(f"the content of the blob cannot be written: {error.strerror}") from error
