"""The files of the history: numbered segments, the last of which grows; the oldest go when there is too much.

    history-0000000000000000.log    blocks (`blocks.py`), named for the number of its first entry
    history-0000000000000000.idx    which of them hold what (`index.py`); made again when it is missing or damaged

What is written while things happen are blocks of a few entries. A segment that is full is rewritten once, with a few
hundred in each block, which takes a third of the room, and gets its index.

One thread writes, another one reads. The lock is held for the moments in which files change their names.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.db.disk import Disk
from services.db.history import blocks, index, pace
from services.db.history.blocks import Damaged, Head
from services.db.history.index import KEY, Block
from services.db.redo import frames
from shared.contracts.db_history import HistoryEntry

log = logging.getLogger("db.history")

BLOCK_ENTRIES: Final = 256
BLOCK_BYTES: Final = 256 * 1024
"""Of a block of a segment that is full, before it is compressed."""
LARGEST_SEGMENT: Final = 8 * 1024 * 1024
SMALLEST_SEGMENT: Final = 16 * 1024
SHARE: Final = 16
"""So many segments at least make up the whole, of bytes as of days: so much goes at once."""
DAY: Final = 86400.0
_NAME: Final = re.compile(r"history-(\d{16})\.log")


@dataclass(slots=True)
class Segment:
    """`first`: number of its first entry. `size`: bytes, with its index. `newest`: no entry is later.

    `records`: of its blocks, until they are in its index.
    """

    path: Path
    first: int
    size: int
    newest: float
    records: bytes | None = None

    @property
    def index_path(self) -> Path:
        return self.path.with_suffix(".idx")


@dataclass(slots=True)
class _Growing(Segment):
    """The last one. `end`: bytes that count. `next`: number of the next entry. `oldest`: time of the first.

    `found`: bytes that were there at the start; their blocks are looked into when somebody asks. `known`: records of
    the others.
    """

    end: int = 0
    next: int = 0
    high: int = 0
    oldest: float = 0.0
    found: int = 0
    known: bytearray = field(default_factory=bytearray)

    def note(self, head: Head, end: int) -> None:
        """One more block, which ends there."""
        self.size = self.end = end
        self.next = head.first + head.count
        self.high = max(self.high, head.high)
        self.oldest = self.oldest or head.since
        self.newest = max(self.newest, head.until)


class Segments:
    """`limit`: bytes of all files; `days`: age of the oldest entries. The folder need not exist."""

    def __init__(self, folder: Path, limit: int, days: float, disk: Disk) -> None:
        self.folder = folder
        self._limit = limit
        self._age = days * DAY
        self._disk = disk
        self._segment_bytes = max(SMALLEST_SEGMENT, min(LARGEST_SEGMENT, limit // SHARE))
        self._full: list[Segment] = []
        self._growing: _Growing | None = None
        self._descriptor = -1
        self._unnamed = True
        """A new file's name may not be on stable storage."""
        self._lock = threading.Lock()
        self.bytes = 0

    # ---- opening

    def open(self) -> int:
        """Finds what is there, cuts off a torn end. The highest generation lately recorded, 0 if there is none.

        Raises `OSError`.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self.folder.glob("*.new"):
            self._disk.unlink(leftover)
        found = sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))
        segments = [self._found(path) for path in found]
        last = segments.pop() if segments else Segment(self.folder / _name(0), 0, 0, 0.0)
        with self._lock:
            self._full = segments
            self._growing = self._grow(last)
        self.bytes = sum(segment.size for segment in segments) + self._growing.size
        return self._growing.high or self._highest_of_full()

    def _highest_of_full(self) -> int:
        """As far as the index of the newest one tells."""
        if not self._full or not self._full[-1].index_path.exists():
            return 0
        newest = self._full[-1]
        records = index.read_file(newest.index_path.read_bytes(), newest.path.stat().st_size)
        return max((block.head.high for block in index.blocks(records or b"")), default=0)

    def _found(self, path: Path) -> Segment:
        """The file was last written when, or after, its newest entry was made."""
        match = _NAME.fullmatch(path.name)
        assert match is not None
        about = path.stat()
        segment = Segment(path, int(match[1]), about.st_size, about.st_mtime)
        if segment.index_path.exists():
            segment.size += segment.index_path.stat().st_size
        return segment

    def _grow(self, segment: Segment) -> _Growing:
        """Goes on with it, after the last block that is whole."""
        growing = _Growing(segment.path, segment.first, 0, segment.newest, next=segment.first)
        descriptor = self._disk.open(segment.path, os.O_RDWR | os.O_CREAT)
        try:
            size = self._disk.size(descriptor)
            data = self._disk.read(descriptor, size, 0)
            for head, _, end, _ in _bodies(data):
                growing.note(head, end)
            growing.found = growing.end
            if growing.end < size:
                log.warning("cutting %d bytes off the end of %s", size - growing.end, segment.path.name)
                self._disk.truncate(descriptor, growing.end)
        except OSError:
            self._disk.close(descriptor)
            raise
        self._close()
        self._disk.unlink(segment.index_path)
        self._descriptor = descriptor
        return growing

    # ---- writing

    def append(self, entries: Sequence[HistoryEntry]) -> None:
        """Raises `OSError`: nothing of them counts, and nothing is in the way of the next."""
        growing = self._growing
        assert growing is not None, "open() comes first"
        if self._descriptor < 0:
            self._descriptor = self._disk.open(growing.path, os.O_RDWR | os.O_CREAT)
            self._disk.truncate(self._descriptor, growing.end)
        head = blocks.head_of(list(entries), growing.next)
        frame = blocks.frame(head, blocks.lines_of(entries), 1)
        try:
            self._disk.write_all(self._descriptor, frame, growing.end)
        except OSError:
            self._cut_back(growing)
            raise
        names = b"".join(sorted(set().union(*map(index.keys, entries))))
        record = Block(head, growing.end, len(frame), names).pack()
        with self._lock:
            growing.known += record
            growing.note(head, growing.end + len(frame))
        self.bytes += len(frame)

    def _cut_back(self, growing: _Growing) -> None:
        """A half block stays behind if even that fails; it is cut off before the next is written."""
        try:
            self._disk.truncate(self._descriptor, growing.end)
        except OSError:
            self._close()

    def sync(self) -> None:
        """Raises `OSError`."""
        if self._descriptor >= 0:
            self._disk.sync(self._descriptor)
        if self._unnamed:
            self._disk.sync_folder(self.folder)
            self._unnamed = False

    def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    # ---- limits

    def keep_limits(self, now: float) -> None:
        """Begins a new segment when the last one is large or old enough, removes those that are over the limits.

        Raises `OSError`.
        """
        growing = self._growing
        if growing is None:
            return
        old = growing.oldest and growing.oldest < now - min(DAY, self._age / SHARE)
        if growing.end >= self._segment_bytes or old:
            self._begin(growing)
        while self._full and (self.bytes > self._limit or self._full[0].newest < now - self._age):
            with self._lock:
                oldest = self._full.pop(0)
            self._disk.unlink(oldest.index_path)
            self._disk.unlink(oldest.path)
            self.bytes -= oldest.size

    def _begin(self, growing: _Growing) -> None:
        records = self._growing_records(growing)
        path = self.folder / _name(growing.next)
        descriptor = self._disk.open(path, os.O_RDWR | os.O_CREAT)
        self._close()
        self._descriptor, self._unnamed = descriptor, True
        segment = Segment(growing.path, growing.first, growing.size, growing.newest, records)
        with self._lock:
            self._full.append(segment)
            self._growing = _Growing(path, growing.next, 0, 0.0, next=growing.next)
        self._rewrite(segment)

    def _rewrite(self, segment: Segment) -> None:
        """With larger blocks. A segment that cannot be rewritten stays as it is."""
        assert segment.records is not None
        new, new_index = segment.path.with_suffix(".log.new"), segment.path.with_suffix(".idx.new")
        try:
            records, size = self._write_merged(new, segment, segment.records)
            packed = index.pack_file(records, size)
            self._write_file(new_index, packed)
            with self._lock:
                self._disk.rename(new, segment.path)
                segment.records = None
                self._disk.rename(new_index, segment.index_path)
            self._disk.sync_folder(self.folder)
        except OSError as error:
            log.warning("%s stays as large as it is: %s", segment.path.name, error)
            self._disk.unlink(new)
            self._disk.unlink(new_index)
            return
        self.bytes += size + len(packed) - segment.size
        segment.size = size + len(packed)

    def _write_merged(self, path: Path, segment: Segment, records: bytes) -> tuple[bytes, int]:
        """The new index records and the new length."""
        source, target = self._disk.open(segment.path, os.O_RDONLY), -1
        try:
            target = self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            merged, end = bytearray(), 0
            for head, lines, names in self._merged(source, records, segment.path.name):
                frame = blocks.frame(head, lines, 6)
                self._disk.write_all(target, frame, end)
                merged += Block(head, end, len(frame), names).pack()
                end += len(frame)
            self._disk.sync(target)
            return bytes(merged), end
        finally:
            self._disk.close(source)
            if target >= 0:
                self._disk.close(target)

    def _merged(self, descriptor: int, records: bytes, name: str) -> Iterator[tuple[Head, bytes, bytes]]:
        """Head, lines and keys of the blocks to come."""
        head: Head | None = None
        lines: list[bytes] = []
        size, names = 0, set[bytes]()
        for block in pace.slowly(index.blocks(records), 32):
            try:
                body = blocks.read_frame(self._disk.read(descriptor, block.length, block.offset))
                more = blocks.read_lines(body)
            except Damaged as damage:
                log.error("entries %d to %d of the history are lost: %s", *_range(block.head), damage)
                continue
            whole = len(lines) + len(more) > BLOCK_ENTRIES or size > BLOCK_BYTES
            if head is not None and (whole or head.first + head.count != block.head.first):
                yield head, b"\n".join(lines), b"".join(sorted(names))
                head, lines, size, names = None, [], 0, set()
            head = block.head if head is None else head.joined(block.head)
            lines += more
            size += sum(map(len, more))
            names.update(block.keys[at : at + KEY] for at in range(0, len(block.keys), KEY))
        if head is not None:
            yield head, b"\n".join(lines), b"".join(sorted(names))

    def _write_file(self, path: Path, data: bytes) -> None:
        descriptor = self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self._disk.write_all(descriptor, data, 0)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    # ---- reading, by another thread

    @property
    def next(self) -> int:
        """Number of the next entry."""
        return self._growing.next if self._growing is not None else 0

    def all(self) -> list[Segment]:
        """Oldest first."""
        with self._lock:
            return [*self._full, *([self._growing] if self._growing is not None else [])]

    def reading(self, segment: Segment) -> tuple[int, bytes]:
        """An open descriptor, which the caller closes, and the records of what can be read from it.

        Raises `OSError`; `FileNotFoundError` for a segment that has been removed.
        """
        with self._lock:
            everything = [*self._full, self._growing]
            current = next((each for each in everything if each is not None and each.first == segment.first), None)
            if current is None:
                raise FileNotFoundError(segment.path)
            descriptor = self._disk.open(current.path, os.O_RDONLY)
            records = current.records
        try:
            if isinstance(current, _Growing):
                return descriptor, self._growing_records(current)
            return descriptor, records if records is not None else self._records(current, descriptor)
        except OSError:
            self._disk.close(descriptor)
            raise

    def read(self, descriptor: int, block: Block) -> list[bytes]:
        """Its entries' lines. Raises `Damaged`, `OSError`."""
        body = blocks.read_frame(self._disk.read(descriptor, block.length, block.offset))
        if blocks.read_head(body) != block.head:
            raise Damaged("another block lies in its place")
        return blocks.read_lines(body)

    def _growing_records(self, growing: _Growing) -> bytes:
        """Raises `OSError`."""
        if growing.found:
            data = self._read_file(growing.path, growing.found)
            older = b"".join(block.pack() for block in pace.slowly(_scan(data, growing.path.name), 8))
            with self._lock:
                if growing.found:
                    growing.known[:0] = older
                    growing.found = 0
        with self._lock:
            return bytes(growing.known)

    def _records(self, segment: Segment, descriptor: int) -> bytes:
        """From its index, or else from all its blocks. Raises `OSError`."""
        size = self._disk.size(descriptor)
        if segment.index_path.exists():
            found = index.read_file(segment.index_path.read_bytes(), size)
            if found is not None:
                return found
        log.warning("%s is missing or of no use, and made again", segment.index_path.name)
        data = self._disk.read(descriptor, size, 0)
        records = b"".join(block.pack() for block in pace.slowly(_scan(data, segment.path.name), 1))
        new = segment.index_path.with_suffix(".made.new")
        self._write_file(new, index.pack_file(records, size))
        self._disk.rename(new, segment.index_path)
        return records

    def _read_file(self, path: Path, length: int) -> bytes:
        descriptor = self._disk.open(path, os.O_RDONLY)
        try:
            return self._disk.read(descriptor, length, 0)
        finally:
            self._disk.close(descriptor)


def _bodies(data: bytes) -> Iterator[tuple[Head, int, int, bytes]]:
    """Head, offset, end and body of every block up to the first that is torn or damaged."""
    offset = 0
    for end, body in frames.decode(data):
        try:
            head = blocks.read_head(body)
        except Damaged:
            return
        yield head, offset, end, body
        offset = end


def _scan(data: bytes, name: str) -> Iterator[Block]:
    """What the index says of a segment's blocks, worked out again."""
    end = 0
    for head, offset, end, body in _bodies(data):
        names: set[bytes] = set()
        try:
            for line in blocks.read_lines(body):
                names |= index.keys(blocks.read_entry(line))
        except Damaged as damage:
            log.error("entries %d to %d of the history cannot be read: %s", *_range(head), damage)
            continue
        yield Block(head, offset, end - offset, b"".join(sorted(names)))
    if end < len(data):
        log.error("%s is damaged; %d bytes of history from byte %d on are lost", name, len(data) - end, end)


def _range(head: Head) -> tuple[int, int]:
    return head.first, head.first + head.count - 1


def _name(first: int) -> str:
    return f"history-{first:016d}.log"
