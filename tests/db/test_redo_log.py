"""The file redo log: what was appended comes back, whatever happened to the end of the file."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.db.redo_log import CheckpointHeader, FileRedoLog, LogRecord, RedoLogError, decode, encode
from shared.contracts.db import RowCreated, SnapshotRow

BOOT = "boot-1"


def record(generation: int, *, durable: bool = True, request: str = "") -> LogRecord:
    change = RowCreated(cls="network", ref=f"r{generation}", fields={"name_label": "ü" * generation})
    return LogRecord(generation=generation, term=1, changes=[change], durable=durable, request=request)


def written(*records: LogRecord) -> bytes:
    return b"".join(encode(msgspec.json.encode(item)) for item in records)


def new_log(folder: Path, boot: str = BOOT) -> FileRedoLog:
    log = FileRedoLog(folder, boot)
    log.recover()
    log.rotate(0, 1)
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
    again.rotate(2, 2)
    again.append(written(record(3)), sync=True)
    assert generations(tmp_path) == [*expected, 3]


def test_damage_before_a_later_segment_stops_the_start(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    log.rotate(1, 1)
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
    log.rotate(2, 1)
    row = SnapshotRow(cls="network", ref="r", created=1, modified=2, fields={"name_label": "x"})
    header = CheckpointHeader(generation=2, term=1, rows=1, boot=BOOT, requests={"q": 2})
    log.write_checkpoint(header, iter([row]))
    log.forget_before(2)
    log.append(written(record(3)), sync=True)
    found = FileRedoLog(tmp_path, BOOT).recover()
    assert (found.rows, [item.generation for item in found.records]) == ([row], [3])
    assert (found.generation, found.requests) == (3, {"q": 2})
    assert len(list(tmp_path.iterdir())) == 2


def test_an_incomplete_checkpoint_is_passed_over(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    row = SnapshotRow(cls="network", ref="r", created=1, modified=1, fields={})
    log.write_checkpoint(CheckpointHeader(generation=1, term=1, rows=1, boot=BOOT), iter([row]))
    path = next(tmp_path.glob("checkpoint-*.db"))
    path.write_bytes(path.read_bytes()[:-4])
    found = FileRedoLog(tmp_path, BOOT).recover()
    assert (found.rows, [item.generation for item in found.records]) == ([], [1])


def test_a_failed_append_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    real, calls = os.write, []

    def full_after_ten_bytes(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, bytes(data[:10]))

    monkeypatch.setattr(os, "write", full_after_ten_bytes)
    with pytest.raises(RedoLogError, match="No space left on device"):
        log.append(written(record(2)), sync=True)
    monkeypatch.undo()
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
        log.rotate(5, 1)
    assert [path.name for path in tmp_path.iterdir()] == [f"redo-{0:020d}.log"]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    log.rotate(7, 1)
    log.append(written(record(8)), sync=True)
    assert generations(tmp_path) == [1, 8]


def test_a_checkpoint_that_does_not_fit_gives_its_room_back(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(written(record(1)), sync=True)
    rows = [SnapshotRow(cls="network", ref=f"r{n}", created=1, modified=1, fields={}) for n in range(1000)]
    with full_disk(200), pytest.raises(OSError, match="too large"):
        log.write_checkpoint(CheckpointHeader(generation=1, term=1, rows=1000, boot=BOOT), iter(rows))
    assert [path.name for path in tmp_path.iterdir()] == [f"redo-{0:020d}.log"]
