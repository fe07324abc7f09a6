"""The file redo log: what was appended comes back, whatever happened to the end of the file."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.db.disk import Disk
from services.db.redo.file import FileRedoLog
from services.db.redo.frames import decode, encode
from services.db.redo.interface import CheckpointHeader, Entry, LogRecord, RedoLogError, entry
from shared.contracts.db import RowCreated, SnapshotRow

BOOT = "boot-1"


def record(generation: int, *, durable: bool = True, request: str = "") -> LogRecord:
    change = RowCreated(cls="network", ref=f"r{generation}", fields={"name_label": "ü" * generation})
    return LogRecord(generation=generation, term=1, changes=[change], durable=durable, request=request)


def written(*records: LogRecord) -> list[Entry]:
    return [entry(item, item.generation - 1) for item in records]


def checkpoint(log: FileRedoLog, header: CheckpointHeader, rows: list[SnapshotRow]) -> None:
    made = log.checkpoint()
    made.begin()
    made.hold(header)
    made.write(rows)
    made.finish()
    made.tidy()


def new_log(folder: Path, boot: str = BOOT, disk: Disk | None = None) -> FileRedoLog:
    log = FileRedoLog(folder, boot, disk)
    log.recover()
    log.begin(0, 1)
    return log


def generations(folder: Path, boot: str = BOOT) -> list[int]:
    return [item.generation for item in FileRedoLog(folder, boot).recover().records]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(0, 400))
def test_a_cut_anywhere_leaves_the_whole_records_before_it(bodies: list[bytes], cut: int) -> None:
    data = b"".join(encode(body) for body in bodies)
    kept = data[: max(0, len(data) - cut)]
    read = [body for _, body in decode(kept)]
    assert read == bodies[: len(read)]
    sizes = [len(encode(body)) for body in bodies]
    assert sum(sizes[: len(read)]) <= len(kept)
    assert len(read) == len(bodies) or sum(sizes[: len(read) + 1]) > len(kept)


def test_appended_records_come_back_in_order(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1), record(2, request="q")), sync=True)
    log.append(written(record(3)), sync=True)
    found = FileRedoLog(tmp_path, BOOT).recover()
    assert [item.generation for item in found.records] == [1, 2, 3]
    assert found.records[1].changes == record(2).changes
    assert (found.generation, found.requests) == (3, {"q": 2})


@pytest.mark.parametrize("damage", ["cut", "flip", "zeros"])
def test_a_torn_tail_is_cut_off_and_the_log_goes_on(tmp_path: Path, damage: str) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1), record(2)), sync=True)
    log.close()
    path = next(tmp_path.glob("redo-*.log"))
    data = path.read_bytes()
    tail = {"cut": data[:-5], "flip": data[:-1] + bytes([data[-1] ^ 1]), "zeros": data + bytes(4096)}[damage]
    path.write_bytes(tail)
    expected = [1, 2] if damage == "zeros" else [1]
    assert generations(tmp_path) == expected
    again = FileRedoLog(tmp_path, BOOT)
    again.recover()
    again.begin(2, 2)
    again.append(written(record(3)), sync=True)
    assert generations(tmp_path) == [*expected, 3]


def test_damage_before_a_later_segment_stops_the_start(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    log.begin(1, 1)
    log.append(written(record(2)), sync=True)
    first = min(tmp_path.glob("redo-*.log"))
    first.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(RedoLogError, match="damaged"):
        generations(tmp_path)


def test_volatile_records_survive_the_process_but_not_the_machine(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1), record(2, durable=False)), sync=True)
    assert generations(tmp_path) == [1, 2]
    assert generations(tmp_path, boot="boot-2") == [1]


def test_a_checkpoint_replaces_what_was_before_it(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1), record(2)), sync=True)
    row = SnapshotRow(cls="network", ref="r", created=1, modified=2, fields={"name_label": "x"})
    header = CheckpointHeader(generation=2, term=1, rows=1, boot=BOOT, requests={"q": 2})
    checkpoint(log, header, [row])
    log.append(written(record(3)), sync=True)
    found = FileRedoLog(tmp_path, BOOT).recover()
    assert (found.rows, [item.generation for item in found.records]) == ([row], [3])
    assert (found.generation, found.requests) == (3, {"q": 2})
    assert len(list(tmp_path.iterdir())) == 2


def test_an_incomplete_checkpoint_is_passed_over(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    row = SnapshotRow(cls="network", ref="r", created=1, modified=1, fields={})
    made = log.checkpoint()
    made.begin()
    made.hold(CheckpointHeader(generation=1, term=1, rows=1, boot=BOOT))
    made.write([row])
    made.finish()
    path = next(tmp_path.glob("checkpoint-*.db"))
    path.write_bytes(path.read_bytes()[:-4])
    found = FileRedoLog(tmp_path, BOOT).recover()
    assert (found.rows, [item.generation for item in found.records]) == ([], [1])


class Filling(Disk):
    """Takes `room` more bytes."""

    room = 1 << 30

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = super().write(descriptor, data[: self.room], offset)
        self.room -= count
        return count


def test_a_failed_append_leaves_nothing_half_written(tmp_path: Path) -> None:
    disk = Filling()
    log = new_log(tmp_path, disk=disk)
    log.append(written(record(1)), sync=True)
    disk.room = 10
    with pytest.raises(RedoLogError, match="No space left on device"):
        log.append(written(record(2)), sync=True)
    disk.room = 1 << 30
    log.append(written(record(3)), sync=True)
    assert generations(tmp_path) == [1, 3]


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files cannot grow beyond `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_segment_that_cannot_be_begun_leaves_no_trace(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    descriptors = len(os.listdir("/proc/self/fd"))
    with full_disk(10), pytest.raises(RedoLogError, match="cannot begin"):
        log.begin(5, 1)
    assert [path.name for path in tmp_path.iterdir()] == [f"redo-{0:020d}.log"]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    log.begin(7, 1)
    log.append(written(record(8)), sync=True)
    assert generations(tmp_path) == [1, 8]


def test_a_checkpoint_that_does_not_fit_gives_its_room_back(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    rows = [SnapshotRow(cls="network", ref=f"r{n}", created=1, modified=1, fields={}) for n in range(1000)]
    made = log.checkpoint()
    made.hold(CheckpointHeader(generation=1, term=1, rows=1000, boot=BOOT))
    with full_disk(200), pytest.raises(RedoLogError, match="too large"):
        made.write(rows)
    assert [path.name for path in tmp_path.iterdir()] == [f"redo-{0:020d}.log"]


def test_what_a_checkpoint_has_before_the_log_does_is_not_missed_when_the_checkpoint_never_counts(
    tmp_path: Path,
) -> None:
    """Commit 2 is in the rows that are being written, and is appended only after the new segment was begun."""
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    made = log.checkpoint()
    made.begin()
    made.hold(CheckpointHeader(generation=2, term=1, rows=0, boot=BOOT))
    log.append(written(record(2)), sync=True)
    assert generations(tmp_path) == [1, 2]


def test_a_request_whose_commit_a_checkpoint_has_is_still_known(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    made = log.checkpoint()
    made.begin()
    made.hold(CheckpointHeader(generation=1, term=1, rows=0, boot=BOOT))
    log.append(written(record(1, request="q")), sync=True)
    made.write([])
    made.finish()
    assert FileRedoLog(tmp_path, BOOT).recover().requests == {"q": 1}


def test_a_term_that_was_begun_is_known_though_nothing_was_committed_in_it(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.begin(1_000_000, 7)
    found = FileRedoLog(tmp_path, BOOT).recover()
    assert (found.generation, found.term) == (1_000_000, 7)


def test_an_append_that_is_retracted_never_was(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    log.append(written(record(2), record(3)), sync=False)
    log.retract()
    log.append(written(record(4)), sync=True)
    assert generations(tmp_path) == [1, 4]


class Stuck(Disk):
    """Cannot write or cut while `broken`."""

    broken = False

    def _check(self) -> None:
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def sync(self, descriptor: int) -> None:
        self._check()
        super().sync(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        self._check()
        super().truncate(descriptor, length)


def test_a_record_that_could_neither_be_synced_nor_cut_off_does_not_come_back(tmp_path: Path) -> None:
    disk = Stuck()
    log = new_log(tmp_path, disk=disk)
    log.append(written(record(1)), sync=True)
    disk.broken = True
    for _ in range(2):
        with pytest.raises(RedoLogError):
            log.append(written(record(2), record(3)), sync=True)
    with pytest.raises(RedoLogError, match="cannot begin"):
        log.begin(1, 1)
    disk.broken = False
    with pytest.raises(RedoLogError, match="before a new segment is begun"):
        log.append(written(record(2)), sync=False)
    log.append(written(record(4)), sync=True)
    assert generations(tmp_path) == [1, 4]
