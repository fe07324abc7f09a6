"""The `file` redo log: an append-only folder of segments, replayed at start.

A record is `length (u32) | crc32 (u32) | body`, little endian, body JSON. A segment begins with a header record that
names the machine's boot. Records of volatile changes (sessions, tasks, `current_operations`) are written but never
waited for: they bring back a database process that was killed, and are ignored once the machine has been restarted.

`checkpoint-<generation>` holds all rows at one generation; segments before it are no longer needed.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import orjson

from shared.contracts.db import RowChange, SnapshotRow

log = logging.getLogger("db.redo_log")

_HEADER = struct.Struct("<II")
_MAX_RECORD = 256 * 1024 * 1024
_SEGMENT = re.compile(r"redo-(\d{20})\.log")
_CHECKPOINT = re.compile(r"checkpoint-(\d{20})\.db")


class LogRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One commit. `request`: id of the bus request that asked for it, so that a repeated one is not applied twice."""

    generation: int
    term: int
    changes: list[RowChange] = []
    request: str = ""
    durable: bool = True
    task: str = ""
    session: str = ""


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    boot: str
    term: int
    version: int = 1


class CheckpointHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    generation: int
    term: int
    rows: int
    boot: str = ""
    requests: dict[str, int] = {}
    version: int = 1


class RedoLogError(Exception):
    """The log cannot be read or written; the text says which file and why."""


@dataclass(slots=True)
class Recovered:
    """What the folder holds: rows of the newest checkpoint and the commits after it, oldest first."""

    generation: int = 0
    term: int = 0
    boot: str = ""
    rows: list[SnapshotRow] = field(default_factory=list)
    records: list[LogRecord] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    torn: int = 0


def encode(body: bytes) -> bytes:
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


def decode(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(end offset, body) of every whole record; stops at the first that is torn or damaged."""
    while offset + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, offset)
        begin = offset + _HEADER.size
        if length == 0 or length > _MAX_RECORD or begin + length > len(data):
            return
        body = data[begin : begin + length]
        if zlib.crc32(body) != crc:
            return
        offset = begin + length
        yield offset, body


def sync_folder(folder: Path) -> None:
    """Makes renames and new files in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileRedoLog:
    """Appends records to the current segment. Not safe for concurrent use: the committer is its only writer."""

    def __init__(self, folder: Path, boot: str) -> None:
        self.folder = folder
        self.boot = boot
        self.bytes = 0
        self.syncs = 0
        self._descriptor = -1
        self._end = 0
        self._path: Path | None = None

    # ---- reading

    def recover(self) -> Recovered:
        """Reads the newest valid checkpoint and every record after it. A torn tail of the last segment is cut off."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = Recovered()
        for path in sorted(self._files(_CHECKPOINT), reverse=True):
            if self._read_checkpoint(path, found):
                break
        segments = sorted(self._files(_SEGMENT))
        for index, path in enumerate(segments):
            self._read_segment(path, found, last=index == len(segments) - 1)
        return found

    def _files(self, pattern: re.Pattern[str]) -> list[Path]:
        return [path for path in self.folder.iterdir() if pattern.fullmatch(path.name)]

    def _read_checkpoint(self, path: Path, found: Recovered) -> bool:
        bodies = [body for _, body in decode(path.read_bytes())]
        if not bodies:
            log.error("checkpoint %s is damaged; an older one is used", path.name)
            return False
        header = msgspec.convert(orjson.loads(bodies[0]), CheckpointHeader)
        rows = [msgspec.convert(item, SnapshotRow) for body in bodies[1:] for item in orjson.loads(body)]
        if len(rows) != header.rows:
            log.error("checkpoint %s holds %d rows of %d; an older one is used", path.name, len(rows), header.rows)
            return False
        found.rows, found.requests = rows, dict(header.requests)
        found.generation, found.term, found.boot = header.generation, header.term, header.boot
        return True

    def _read_segment(self, path: Path, found: Recovered, last: bool) -> None:
        data = path.read_bytes()
        end, boot = 0, ""
        for end, body in decode(data):  # noqa: B007 (its last value is where the damage begins)
            raw = orjson.loads(body)
            if "boot" in raw:
                boot = msgspec.convert(raw, SegmentHeader).boot
                continue
            record = msgspec.convert(raw, LogRecord)
            if record.generation < found.generation or (record.generation == found.generation and record.changes):
                continue
            found.generation, found.term = record.generation, max(found.term, record.term)
            if record.durable or boot == self.boot:
                found.records.append(record)
            if record.request:
                found.requests[record.request] = record.generation
        found.boot = boot or found.boot
        if end == len(data):
            return
        if not last:
            raise RedoLogError(f"{path.name} is damaged at byte {end}, and later segments follow it")
        found.torn = len(data) - end
        log.warning("cutting %d bytes of a torn record off %s", found.torn, path.name)
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())

    # ---- writing

    def rotate(self, generation: int, term: int) -> None:
        """Begins a new segment for what follows `generation`. Where it cannot, `RedoLogError` is raised, and nothing is
        left of it: a segment with half a header would be in the way of the next start.
        """
        path = self.folder / f"redo-{generation:020d}.log"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise RedoLogError(f"cannot begin {path.name}: {error.strerror}") from error
        before = os.fstat(descriptor).st_size
        try:
            header = encode(orjson.dumps(msgspec.to_builtins(SegmentHeader(boot=self.boot, term=term))))
            _write_all(descriptor, header)
            os.fdatasync(descriptor)
            sync_folder(self.folder)
        except OSError as error:
            if before:
                os.ftruncate(descriptor, before)
            else:
                path.unlink()
            os.close(descriptor)
            raise RedoLogError(f"cannot begin {path.name}: {error.strerror}") from error
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._path = descriptor, path
        self._end = os.fstat(descriptor).st_size

    def append(self, records: bytes, sync: bool) -> None:
        """Writes whole encoded records; with `sync` they are on stable storage when it returns.

        On failure the segment is cut back to where it was, so no half record is in the way of the next, and
        `RedoLogError` is raised: nothing of `records` counts.
        """
        try:
            _write_all(self._descriptor, records)
            if sync:
                os.fdatasync(self._descriptor)
                self.syncs += 1
        except OSError as error:
            self._cut_back(error)
            raise RedoLogError(f"the redo log cannot be written: {error.strerror}") from error
        self._end += len(records)
        self.bytes += len(records)

    def _cut_back(self, reason: OSError) -> None:
        try:
            os.ftruncate(self._descriptor, self._end)
            os.fdatasync(self._descriptor)
        except OSError as error:
            log.critical("after %s the redo log could not be cut back: %s", reason.strerror, error.strerror)

    @property
    def segment_bytes(self) -> int:
        return self._end

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # ---- checkpoints

    def write_checkpoint(self, header: CheckpointHeader, rows: Iterator[SnapshotRow]) -> None:
        """Writes all rows to a new file that takes its name only when it is complete and durable, or leaves none."""
        path = self.folder / f"checkpoint-{header.generation:020d}.db"
        temporary = path.with_suffix(".new")
        try:
            self._write_rows(temporary, header, rows)
        except OSError:
            temporary.unlink(missing_ok=True)  # on a full disk it would take the room that the log needs
            raise
        temporary.rename(path)
        sync_folder(self.folder)

    def _write_rows(self, path: Path, header: CheckpointHeader, rows: Iterator[SnapshotRow]) -> None:
        with path.open("wb") as file:
            file.write(encode(orjson.dumps(msgspec.to_builtins(header))))
            batch: list[dict[str, object]] = []
            for row in rows:
                batch.append(
                    {
                        "cls": row.cls,
                        "ref": row.ref,
                        "created": row.created,
                        "modified": row.modified,
                        "fields": row.fields,
                    }
                )
                if len(batch) == 500:
                    file.write(encode(orjson.dumps(batch)))
                    batch.clear()
            if batch:
                file.write(encode(orjson.dumps(batch)))
            file.flush()
            os.fsync(file.fileno())

    def drop_checkpoint(self, generation: int) -> None:
        (self.folder / f"checkpoint-{generation:020d}.db").unlink(missing_ok=True)

    def forget_before(self, generation: int) -> None:
        """Removes checkpoints and segments that the checkpoint at `generation` replaces."""
        for pattern in (_CHECKPOINT, _SEGMENT):
            for path in self._files(pattern):
                match = pattern.fullmatch(path.name)
                if match and int(match[1]) < generation:
                    path.unlink(missing_ok=True)
        for leftover in self.folder.glob("*.new"):
            leftover.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
