"""A map that survives kill -9 and power loss: an append-only file of changes, synced before a write is acknowledged.

Writes that arrive while a sync is running share the next one. What is synced together is one line, a CRC-32 and JSON:
it is there as a whole or not at all, and only the last one can be torn (the process died while it wrote); that one is
cut off at start.
When the file has grown well beyond what it describes, and after any failed write, it is written anew beside the old
one and renamed over it: a failed sync says nothing about what reached the disk, so the file is not trusted any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger("storage.journal")

COMPACT_AT = 1 << 20
"""Bytes from which the file is rewritten, if the rewrite would be less than a quarter of it."""

Changes = Mapping[str, Any]
"""Key to its new value (anything JSON can hold); None removes the key."""


class JournalDamaged(Exception):
    """A line before the last one cannot be read: something else wrote to the file or the disk is failing."""


class Journal:
    """`data` is what is durable, plus what `note` could not write yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: list[tuple[Changes, bool, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._size = 0
        self._trusted = True
        self._file = -1
        self._load()

    async def write(self, changes: Changes, sync: bool = True) -> None:
        """Returns when the changes are durable. Raises OSError; then they are not made.

        Without `sync` they survive the end of the process, but not that of the machine.
        """
        if not changes:
            return
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((changes, sync, durable))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="journal")
        await durable

    async def note(self, changes: Changes, sync: bool = True) -> None:
        """For what has happened already. If it cannot be written, that is logged and the next write brings it along."""
        try:
            await self.write(changes, sync)
        except OSError as error:
            log.error("cannot write %s: %s; will be written with the next change", self.path, error)
            _apply(self.data, changes)
            self._trusted = False

    async def close(self) -> None:
        if self._flushing is not None:
            await self._flushing
        self._writer.shutdown()
        os.close(self._file)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                # kept apart from `data` until durable: a failed write must leave no trace
                after = dict(self.data) if self._rewrite_due() else None
                merged = {key: value for changes, _, _ in batch for key, value in changes.items()}
                try:
                    if after is not None:
                        _apply(after, merged)
                        await loop.run_in_executor(self._writer, self._rewrite, after)
                    else:
                        await loop.run_in_executor(
                            self._writer, self._append, _line(merged), any(sync for _, sync, _ in batch)
                        )
                except OSError as error:
                    self._trusted = False
                    for _, _, durable in batch:
                        if not durable.done():
                            durable.set_exception(error)
                    continue
                _apply(self.data, merged)
                for _, _, durable in batch:
                    if not durable.done():
                        durable.set_result(None)
        finally:
            self._flushing = None

    def _rewrite_due(self) -> bool:
        return not self._trusted or (self._size > COMPACT_AT and self._size > 4 * len(_line(self.data)))

    def _append(self, text: bytes, sync: bool) -> None:
        _write_all(self._file, text)
        if sync:
            os.fdatasync(self._file)
        self._size += len(text)

    def _rewrite(self, data: dict[str, Any]) -> None:
        text = _line(data) if data else b""
        fresh = self.path.with_suffix(".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, text)
            os.fsync(file)
            os.replace(fresh, self.path)
            _sync_folder(self.path.parent)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size, self._trusted = file, len(text), True

    def _load(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        text = self.path.read_bytes()
        batches = [(line, _parse(line)) for line in text.splitlines(keepends=True)]
        whole = next((n for n, (_, changes) in enumerate(batches) if changes is None), len(batches))
        if any(changes is not None for _, changes in batches[whole:]):
            raise JournalDamaged(f"line {whole + 1} of {self.path} is damaged")
        for line, changes in batches[:whole]:
            _apply(self.data, changes or {})
            self._size += len(line)
        if self._size < len(text):
            log.warning("%s: cut off %d bytes of an unfinished write", self.path, len(text) - self._size)
            os.ftruncate(self._file, self._size)
        os.fsync(self._file)
        _sync_folder(self.path.parent)


def _line(changes: Changes) -> bytes:
    text = orjson.dumps(dict(changes))
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any] | None:
    """None: not a whole line."""
    if not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    text = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(text):
        return None
    changes: dict[str, Any] = orjson.loads(text)
    return changes


def _apply(data: dict[str, Any], changes: Changes) -> None:
    for key, value in changes.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = value


def _write_all(file: int, text: bytes) -> None:
    view = memoryview(text)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
