"""The `file` redo log: an append-only folder of segments, replayed at start.

A segment is made of checksummed frames (`frames.py`) whose bodies are JSON. It begins with a header that names the
machine's boot. Records of volatile changes (sessions, tasks, `current_operations`) are written but never waited for:
they bring back a database process that was killed, and are ignored once the machine has been restarted.

`checkpoint-<generation>` holds all rows at one generation; segments before it are no longer needed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import orjson

from services.db.disk import Disk
from services.db.redo.frames import decode, encode
from services.db.redo.interface import CheckpointHeader, Entry, LogRecord, Recovered, RedoLogError, bodies, entry
from shared import garbage
from shared.contracts.db import RowChange, SnapshotRow

log = logging.getLogger("db.redo_log")

_SEGMENT: Final = re.compile(r"redo-(\d{20})\.log")
_DOUBTFUL: Final = "doubtful"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d{20})\.db")

PIECE: Final = 1024 * 1024
"""Bytes that a checkpoint's writer gathers before it writes them."""


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """`follows`: the last generation before the segment, which is also in its name."""

    boot: str
    term: int
    follows: int = 0
    version: int = 1


_HEADER_BEGINS: Final = b'{"boot":'
_header_decoder: Final = msgspec.json.Decoder(SegmentHeader)
_record_decoder: Final = msgspec.json.Decoder(LogRecord)
_rows_decoder: Final = msgspec.json.Decoder(list[SnapshotRow])


class FileRedoLog:
    """Appends records to the current segment.

    `synced`: false for the journal beside another log, which outlives the process and not the machine.
    """

    kind = "file"

    def __init__(
        self,
        folder: Path,
        boot: str,
        disk: Disk | None = None,
        *,
        synced: bool = True,
        checkpoint_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.folder = folder
        self.boot = boot
        self.bytes = 0
        self.syncs = 0
        self._disk = disk or Disk()
        self._synced = synced
        self._checkpoint_bytes = checkpoint_bytes
        self._descriptor = -1
        self._end = 0
        self._last = 0
        self._generation = self._term = 0
        self._dirty = False
        """Behind the end may be something that does not count and could not be cut off."""

    @property
    def backlog(self) -> int:
        return self._end

    @property
    def roomy(self) -> bool:
        return self._end < self._checkpoint_bytes

    def generations(self, changes: Sequence[RowChange]) -> int:
        return 1

    # ---- reading

    def recover(self) -> Recovered:
        """Reads the newest valid checkpoint and every record after it. A torn tail of the last segment is cut off."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = Recovered()
        with garbage.paused():
            for path in sorted(self._files(_CHECKPOINT), reverse=True):
                if self._read_checkpoint(path, found):
                    break
            segments = sorted(self._files(_SEGMENT))
            for index, path in enumerate(segments):
                self._read_segment(path, found, last=index == len(segments) - 1)
        return found

    @property
    def doubtful(self) -> bool:
        """Whether `become` was not finished."""
        return (self.folder / _DOUBTFUL).exists()

    def become(self, other: Recovered) -> None:
        """Holds what another log does, in the place of all that it had. Raises `RedoLogError`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._disk.close(self._disk.open(self.folder / _DOUBTFUL, os.O_RDWR | os.O_CREAT))
            self._disk.sync_folder(self.folder)
            for path in (*self._files(_CHECKPOINT), *self._files(_SEGMENT)):
                self._disk.unlink(path)
            _copy(other, FileRedoLog(self.folder, other.boot, self._disk, synced=False))
            self._disk.unlink(self.folder / _DOUBTFUL)
            self._disk.sync_folder(self.folder)
        except OSError as error:
            raise RedoLogError(f"{self.folder} cannot take what another log holds: {error.strerror}") from error

    def _files(self, pattern: re.Pattern[str]) -> list[Path]:
        return [path for path in self.folder.iterdir() if pattern.fullmatch(path.name)]

    def _read_checkpoint(self, path: Path, found: Recovered) -> bool:
        read = [body for _, body in decode(path.read_bytes())]
        if not read:
            log.error("checkpoint %s is damaged; an older one is used", path.name)
            return False
        header = msgspec.json.decode(read[0], type=CheckpointHeader)
        rows = [row for body in read[1:] for row in _rows_decoder.decode(body)]
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
            if body.startswith(_HEADER_BEGINS):
                header = _header_decoder.decode(body)
                if (boot or found.boot) not in ("", header.boot) and header.follows > found.generation:
                    found.restarts.append(header.follows)
                boot = header.boot
                found.generation, found.term = max(found.generation, header.follows), max(found.term, header.term)
                continue
            record = _record_decoder.decode(body)
            if record.request:  # also of one whose changes the checkpoint has: it was being written then
                found.requests[record.request] = record.generation
            if record.generation < found.generation or (record.generation == found.generation and record.changes):
                continue
            found.generation, found.term = record.generation, max(found.term, record.term)
            if record.durable or boot == self.boot:
                found.records.append(record)
        found.boot = boot or found.boot
        if end == len(data):
            return
        if not last:
            raise RedoLogError(f"{path.name} is damaged at byte {end}, and later segments follow it")
        found.torn = len(data) - end
        log.warning("cutting %d bytes of a torn record off %s", found.torn, path.name)
        descriptor = self._disk.open(path, os.O_RDWR)
        try:
            self._disk.truncate(descriptor, end)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    # ---- writing

    def next_segment(self) -> int:
        """Begins one that follows what was appended; returns the number in its name."""
        self.begin(self._generation, self._term)
        return self._generation

    def begin(self, generation: int, term: int) -> None:
        """Begins a new segment. The term is durable before anything is answered in it: no later start uses it again.

        Where it cannot, nothing is left of it: a segment with half a header would be in the way of the next one.
        """
        path = self.folder / f"redo-{generation:020d}.log"
        header = encode(orjson.dumps(msgspec.to_builtins(SegmentHeader(boot=self.boot, term=term, follows=generation))))
        try:
            self._end_segment()
            descriptor = self._disk.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise RedoLogError(f"cannot begin {path.name}: {error.strerror}") from error
        before = self._disk.size(descriptor)
        try:
            self._disk.write_all(descriptor, header, before)
            self._disk.sync(descriptor)
            self._disk.sync_folder(self.folder)
        except OSError as error:
            self._withdraw(path, descriptor, before)
            raise RedoLogError(f"cannot begin {path.name}: {error.strerror}") from error
        self.close()
        self._descriptor, self._generation, self._term = descriptor, generation, term
        self._end = self._last = before + len(header)

    def _end_segment(self) -> None:
        """Only the last segment may have a torn end."""
        if self._descriptor < 0:
            return
        if self._dirty:
            self._disk.truncate(self._descriptor, self._end)
        self._disk.sync(self._descriptor)
        self._dirty = False

    def _withdraw(self, path: Path, descriptor: int, before: int) -> None:
        try:
            if before:
                self._disk.truncate(descriptor, before)
            else:
                self._disk.unlink(path)
        except OSError as error:
            log.critical("the segment %s that failed cannot be withdrawn: %s", path.name, error.strerror)
        finally:
            self._disk.close(descriptor)

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        """On failure the segment is cut back to where it was, so no half record is in the way of the next."""
        if self._dirty:
            raise RedoLogError("the redo log has something at its end that could not be cut off")
        data = b"".join([item.frame for item in entries])
        try:
            self._disk.write_all(self._descriptor, data, self._end)
            if sync and self._synced:
                self._disk.sync(self._descriptor)
                self.syncs += 1
        except OSError as error:
            self._cut_back(self._end, error)
            raise RedoLogError(f"the redo log cannot be written: {error.strerror}") from error
        self._last = self._end
        self._end += len(data)
        self.bytes += len(data)
        self._generation = entries[-1].record.generation

    def retract(self) -> None:
        """The last append did not happen."""
        self._end = self._last
        self._cut_back(self._end, None)

    def _cut_back(self, end: int, reason: OSError | None) -> None:
        try:
            self._disk.truncate(self._descriptor, end)
            if self._synced:
                self._disk.sync(self._descriptor)
        except OSError as error:
            self._dirty = True
            why = reason.strerror if reason else "another log's failure"
            log.critical("after %s the redo log could not be cut back: %s", why, error.strerror)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    # ---- checkpoints

    def checkpoint(self) -> FileCheckpoint:
        return FileCheckpoint(self, self._disk)

    def forget_before(self, checkpoint: int, segment: int) -> None:
        """Removes older checkpoints and segments than these."""
        for pattern, kept in ((_CHECKPOINT, checkpoint), (_SEGMENT, segment)):
            for path in self._files(pattern):
                match = pattern.fullmatch(path.name)
                if match and int(match[1]) < kept:
                    self._disk.unlink(path)
        for leftover in self.folder.glob("*.new"):
            self._disk.unlink(leftover)


def _copy(other: Recovered, to: FileRedoLog) -> None:
    base = other.records[0].generation - 1 if other.records else other.generation
    checkpoint = to.checkpoint()
    checkpoint.hold(
        CheckpointHeader(
            generation=base, term=other.term, rows=len(other.rows), boot=other.boot, requests=other.requests
        )
    )
    checkpoint.write(other.rows)
    checkpoint.finish()
    to.begin(base, other.term)
    try:
        if other.records:
            to.append([entry(record, record.generation - 1) for record in other.records], sync=False)
    finally:
        to.close()


class FileCheckpoint:
    """A new file that takes its name when it counts."""

    def __init__(self, redo_log: FileRedoLog, disk: Disk) -> None:
        self._log = redo_log
        self._disk = disk
        self._segment: int | None = None
        """The first one that is still needed."""
        self._header = CheckpointHeader(generation=0, term=0, rows=0)

    def begin(self) -> None:
        self._segment = self._log.next_segment()

    def hold(self, header: CheckpointHeader) -> None:
        self._header = header

    @property
    def _path(self) -> Path:
        return self._log.folder / f"checkpoint-{self._header.generation:020d}.db"

    @property
    def _temporary(self) -> Path:
        return self._path.with_suffix(".new")

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        try:
            self._write(rows)
        except OSError as error:
            # On a full disk it would take the room that the log needs.
            self._disk.unlink(self._temporary)
            raise RedoLogError(f"the checkpoint cannot be written: {error.strerror}") from error

    def _write(self, rows: Iterable[SnapshotRow]) -> None:
        descriptor = self._disk.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            gathered = bytearray(encode(orjson.dumps(msgspec.to_builtins(self._header))))
            at = 0
            for body in bodies(rows):
                gathered += encode(body)
                if len(gathered) >= PIECE:
                    self._disk.write_all(descriptor, bytes(gathered), at)
                    at += len(gathered)
                    gathered.clear()
            self._disk.write_all(descriptor, bytes(gathered), at)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def finish(self) -> None:
        """The file's new name is the moment."""
        try:
            self._disk.rename(self._temporary, self._path)
            self._disk.sync_folder(self._log.folder)
        except OSError as error:
            raise RedoLogError(f"the checkpoint cannot take its name: {error.strerror}") from error

    def abandon(self) -> None:
        try:
            self._disk.unlink(self._temporary)
            self._disk.unlink(self._path)
            self._disk.sync_folder(self._log.folder)
        except OSError as error:
            raise RedoLogError(f"a checkpoint that must not count cannot be removed: {error.strerror}") from error

    def tidy(self) -> None:
        try:
            generation = self._header.generation
            self._log.forget_before(generation, generation if self._segment is None else self._segment)
        except OSError as error:
            log.warning("what a checkpoint replaces is not removed: %s", error)
