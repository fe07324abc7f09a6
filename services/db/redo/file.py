"""The `file` redo log: an append-only folder of segments, replayed at start.

What a segment looks like, and which of them count, is in `segments.py`. Records of volatile changes (sessions, tasks,
`current_operations`) are written but never waited for: they bring back a database process that was killed, and are
ignored once the machine has been restarted.

`checkpoint-<generation>` holds all rows at one generation; segments before it are no longer needed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import orjson

from services.db.disk import Disk
from services.db.redo import segments
from services.db.redo.frames import decode, encode
from services.db.redo.interface import (
    CheckpointHeader,
    Entry,
    LogRecord,
    Recovered,
    RedoLogError,
    Uncertain,
    bodies,
    entry,
)
from services.db.redo.segments import Segment, SegmentHeader
from shared import garbage
from shared.contracts.db import RowChange, SnapshotRow

log = logging.getLogger("db.redo_log")

_DOUBTFUL: Final = "doubtful"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d{20})\.db")

PIECE: Final = 256 * 1024
"""Bytes that a checkpoint's writer gathers before it writes and syncs them: a commit that is synced meanwhile waits for
the disk to take so many, not for the whole file.
"""


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
        self.synced = synced
        self._checkpoint_bytes = checkpoint_bytes
        self._descriptor = -1
        self._number = -1
        """Of the segment that is appended to."""
        self._newest = -1
        """Highest number of any, also of those that could not be begun."""
        self._end = self._durable = 0
        """Bytes of it that count, and those that are certainly on stable storage."""
        self._claimed = 0
        """What of that the segment itself says."""
        self._last = (0, 0)
        """Its end and generation before the last append."""
        self._generation = self._term = 0
        self._usable = False
        """Nothing is known to lie behind its end, and nothing before it to be lost."""

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
        """Reads the newest valid checkpoint and every record after it. A torn end of the last segment is passed over.

        An older checkpoint does as well when the commits up to the newer one are all there.
        """
        if not self.folder.exists():
            self.folder.mkdir(parents=True, mode=0o700)
            self._disk.sync_folder(self.folder.parent)
        found = Recovered()
        damaged = ""
        with garbage.paused():
            for path in sorted(self._files(_CHECKPOINT), reverse=True):
                if self._read_checkpoint(path, found):
                    break
                damaged = damaged or path.name
            for segment in segments.chain(self.folder):
                self._read_segment(segment, found, damaged)
        if damaged and found.generation < _generation_of(damaged):
            raise RedoLogError(f"{damaged} is damaged, and the commits that it holds are nowhere else")
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
            for path in (*self._files(_CHECKPOINT), *self._files(segments.NAME)):
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

    def _read_segment(self, segment: Segment, found: Recovered, damaged: str) -> None:
        header = segment.header
        missing = header.follows > found.generation
        if damaged and missing and header.follows >= _generation_of(damaged):
            raise RedoLogError(f"{damaged} is damaged, and the commits that it holds are nowhere else")
        if missing and segment.first and header.after >= 0:
            raise RedoLogError(f"the commits before {segment.path.name}, after {found.generation}, are missing")
        if missing and found.boot not in ("", header.boot):
            found.restarts.append(header.follows)
        found.boot, found.journal = header.boot, header.journal
        found.generation, found.term = max(found.generation, header.follows), max(found.term, header.term)
        for body in segment.records():
            record = _record_decoder.decode(body)
            if record.request:  # also of one whose changes the checkpoint has: it was being written then
                found.requests[record.request] = record.generation
            if record.generation < found.generation or (record.generation == found.generation and record.changes):
                continue
            found.generation, found.term = record.generation, max(found.term, record.term)
            if record.durable or header.boot == self.boot:
                found.records.append(record)
        found.torn = len(segment.data) - segment.end if segment.last else 0
        if found.torn:
            log.warning("%s has a torn end of %d bytes, which never counted", segment.path.name, found.torn)

    # ---- writing

    def next_segment(self) -> int:
        """Begins one that follows what was appended; returns the number in its name."""
        self.begin(self._generation, self._term)
        return self._number

    def begin(self, generation: int, term: int) -> None:
        """Begins a new segment. The term is durable before anything is answered in it: no later start uses it again.

        Its header says what counts of the one before: nothing that was refused comes back once it is there. Where it
        cannot be begun, it is removed, or the one before is not appended to any more.
        """
        if self._descriptor < 0:
            self._look()
        self._newest = number = max(generation, self._newest + 1)
        path = segments.path_of(self.folder, number)
        try:
            self._end_segment()
            descriptor = self._disk.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise RedoLogError(f"cannot begin {path.name}: {error.strerror}") from error
        header = segments.header_frame(
            SegmentHeader(
                boot=self.boot,
                term=term,
                follows=generation,
                after=self._number,
                counts=self._end,
                durable=self._durable,
                journal=not self.synced,
            )
        )
        try:
            self._disk.write_all(descriptor, header, 0)
            self._disk.sync(descriptor)
            self._disk.sync_folder(self.folder)
        except OSError as error:
            self._withdraw(path, descriptor)
            raise RedoLogError(f"cannot begin {path.name}: {error.strerror}") from error
        self.close()
        self._descriptor, self._number, self._usable = descriptor, number, True
        self._generation, self._term = generation, term
        self._end = self._durable = self._claimed = len(header)
        self._last = (self._end, generation)

    def _look(self) -> None:
        """What a new segment follows: the last one that is there, which an earlier process may not have synced."""
        try:
            newest = segments.last(self.folder)
            self._newest = max(segments.numbers(self.folder), default=-1)
            if newest is not None:
                descriptor = self._disk.open(newest.path, os.O_RDWR)
                try:
                    self._disk.sync(descriptor)
                finally:
                    self._disk.close(descriptor)
        except OSError as error:
            raise RedoLogError(f"{self.folder} cannot be used: {error.strerror}") from error
        self._number = -1 if newest is None else newest.number
        self._end = self._durable = 0 if newest is None else newest.end

    def _end_segment(self) -> None:
        """What need not outlive the machine outlives it all the same, if it can. A journal has nothing else."""
        if self._descriptor < 0:
            return
        try:
            self._disk.sync(self._descriptor)
        except OSError:
            self._usable = False  # what was dirty counts as clean now, and may be lost in the middle of what follows
            if not self.synced:
                raise
        if self._usable:
            self._durable = self._end

    def _withdraw(self, path: Path, descriptor: int) -> None:
        try:
            self._disk.unlink(path)
            self._disk.sync_folder(self.folder)
        except OSError as error:
            self._usable = False  # it may be there at the next start, and says where the one before ended
            log.critical("the segment %s that failed cannot be withdrawn: %s", path.name, error.strerror)
        finally:
            self._disk.close(descriptor)

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        """Raises `Uncertain` when it can neither be completed nor undone."""
        if not self._usable:
            if not sync:
                raise RedoLogError("nothing can be appended to the redo log before a new segment is begun")
            self.begin(self._generation, self._term)
        data = b"".join([item.frame for item in entries])
        if self.synced and self._claimed < self._durable:
            data = segments.synced_frame(self._durable) + data
        try:
            self._disk.write_all(self._descriptor, data, self._end)
            if sync and self.synced:
                self._sync()
        except OSError as error:
            self._cut_back(error)
            raise RedoLogError(f"the redo log cannot be written: {error.strerror}") from error
        self._last = (self._end, self._generation)
        self._end += len(data)
        self.bytes += len(data)
        self._generation = entries[-1].record.generation
        if self.synced:
            self._claimed = self._durable
            if sync:
                self._durable = self._end

    def _sync(self) -> None:
        try:
            self._disk.sync(self._descriptor)
        except OSError:
            self._usable = False
            raise
        self.syncs += 1

    def retract(self) -> None:
        """The last append did not happen. Raises `Uncertain`."""
        self._end, self._generation = self._last
        self._durable, self._claimed = min(self._durable, self._end), min(self._claimed, self._end)
        self._cut_back(None)

    def _cut_back(self, reason: OSError | None) -> None:
        """Nothing is behind the end, or a new segment says that it does not count. Raises `Uncertain`."""
        if self._disk.size(self._descriptor) <= self._end:
            return
        try:
            self._disk.truncate(self._descriptor, self._end)
            if self.synced:
                self._disk.sync(self._descriptor)
        except OSError as error:
            self._usable = False
            why = reason.strerror if reason else "another log's failure"
            log.critical("after %s the redo log could not be cut back: %s", why, error.strerror)
            try:
                self.begin(self._generation, self._term)
            except RedoLogError as again:
                raise Uncertain(f"what was refused can neither be undone nor shut out: {again}") from error

    def close(self) -> None:
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    # ---- checkpoints

    def checkpoint(self) -> FileCheckpoint:
        return FileCheckpoint(self, self._disk)

    def forget_before(self, checkpoint: int, segment: int) -> None:
        """Removes older checkpoints and segments than these."""
        older = [
            path
            for pattern, kept in ((_CHECKPOINT, checkpoint), (segments.NAME, segment))
            for path in self._files(pattern)
            if (match := pattern.fullmatch(path.name)) and int(match[1]) < kept
        ]
        self._disk.remove([*older, *self.folder.glob("*.new")])


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


def _generation_of(checkpoint: str) -> int:
    match = _CHECKPOINT.fullmatch(checkpoint)
    return int(match[1]) if match else 0


class FileCheckpoint:
    """A new file that takes its name when it counts."""

    def __init__(self, redo_log: FileRedoLog, disk: Disk) -> None:
        self._log = redo_log
        self._disk = disk
        self._segment: int | None = None
        """The first one that is still needed."""
        self._header = CheckpointHeader(generation=0, term=0, rows=0)
        self._named = False
        """Whether the file may have its name."""

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
            with suppress(OSError):
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
                    self._disk.sync(descriptor)
                    at += len(gathered)
                    gathered.clear()
            self._disk.write_all(descriptor, bytes(gathered), at)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def finish(self) -> None:
        """The file's new name is the moment."""
        self._named = True
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
            if not self._named:
                log.warning("what is left of a checkpoint cannot be removed: %s", error)
                return
            raise RedoLogError(f"a checkpoint that must not count cannot be removed: {error.strerror}") from error

    def tidy(self) -> None:
        try:
            generation = self._header.generation
            self._log.forget_before(generation, generation if self._segment is None else self._segment)
        except OSError as error:
            log.warning("what a checkpoint replaces is not removed: %s", error)
