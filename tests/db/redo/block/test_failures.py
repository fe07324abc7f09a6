"""Devices that refuse, fill up, disappear, hang, or hold something else; halves that are damaged."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from services.db.disk import Disk
from services.db.redo.block.log import BlockRedoLog
from services.db.redo.interface import CheckpointHeader, LogFull, LogLost, LogRecord, RedoLogError, Uncertain, entry
from shared.contracts.db import RowCreated
from shared.redo_blocks import layout
from shared.redo_blocks.layout import Geometry, Half
from tests.db.redo.block import original
from tests.db.redo.block.harness import SMALL, Primary, Rows, drop, network, recovered_rows, rows_of, write
from tests.support.faulty_disk import Fault, FaultyDisk
from tests.support.lossy_disk import LossyDisk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "log"


@pytest.fixture
def disk(path: Path) -> FaultyDisk:
    return FaultyDisk(LossyDisk(path.parent, path.parent.parent / "image"))


def theirs(path: Path) -> original.Found:
    found = original.read(path.read_bytes(), SMALL.half)
    assert found is not None
    return found


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


# ---- refusing


@pytest.mark.parametrize("step", ["write", "sync"])
@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.ENXIO])
def test_a_batch_that_cannot_be_written_never_counts_and_the_next_one_does(
    path: Path, disk: FaultyDisk, step: str, skip: int, error: int
) -> None:
    primary = Primary(path, disk)
    before = primary.commit(network("n"))
    disk.faults = [Fault(step, error, skip=skip, times=1)]  # type: ignore[arg-type]
    with pytest.raises(RedoLogError, match=os.strerror(error)):
        primary.commit(write("n", name_label="refused"))
    assert theirs(path).rows == before
    with pytest.raises(RedoLogError, match="not ready"):
        primary.commit(write("n", name_label="before begin"))
    primary.log.begin(primary.store.generation, primary.store.term)
    after = primary.commit(write("n", name_label="later"))
    assert theirs(path).rows == after
    assert primary.again().rows == after


def test_a_batch_that_could_not_be_taken_back_is_before_anything_follows(path: Path, disk: FaultyDisk) -> None:
    primary = Primary(path, disk)
    before = primary.commit(network("n"))
    disk.faults = [Fault("sync", skip=1)]  # the length may be there, and nothing that follows helps
    with pytest.raises(Uncertain, match=r"cannot be written: .*; .*cannot take off what may count"):
        primary.commit(write("n", name_label="refused"))
    with pytest.raises(RedoLogError):
        primary.log.begin(primary.store.generation, primary.store.term)
    disk.faults = []
    primary.log.begin(primary.store.generation, primary.store.term)
    assert theirs(path).rows == before
    assert recovered_rows_after_close(primary) == before


def recovered_rows_after_close(primary: Primary) -> Rows:
    primary.log.close()
    return recovered_rows(primary.path)


def test_short_writes_are_completed(path: Path, disk: FaultyDisk) -> None:
    primary = Primary(path, disk)
    disk.faults = [Fault("write", 0, times=5)]
    after = primary.commit(network("n"), write("n", name_label="x" * 900))
    assert theirs(path).rows == after


# ---- full


def test_a_full_half_says_so_and_a_checkpoint_makes_room(path: Path) -> None:
    primary = Primary(path)
    rows = primary.commit(network("n"))
    roomy: list[bool] = []
    for _ in range(100):
        entry = primary.entry(write("n", name_label="x" * 500, name_description=str(len(roomy))))
        try:
            primary.log.append([entry], True)
        except LogFull:
            break
        rows = primary.rows
        roomy.append(primary.log.roomy)
    assert roomy[-1] is False
    assert roomy.index(False) > len(roomy) // 2
    assert theirs(path).rows == rows
    primary.checkpoint()
    assert primary.log.roomy
    assert primary.log.backlog == 0
    assert theirs(path).rows == primary.rows  # the rows had the commit already
    primary.log.append([entry], True)
    assert primary.again().rows == primary.rows


def test_a_database_larger_than_a_half_says_how_large_it_is(path: Path) -> None:
    primary = Primary(path)
    before = primary.commit(network("n"))
    for number in range(3):
        primary.entry(network(f"m{number}", name_description="x" * 20_000))
    checkpoint = primary.checkpoint_of(primary.header())
    checkpoint.begin()
    with pytest.raises(LogFull, match=r"the database is 6\d{4} bytes long.* holds 40000"):
        checkpoint.write(primary.store.snapshot())
    checkpoint.abandon()
    assert theirs(path).rows == before


def test_commits_made_during_a_checkpoint_that_do_not_fit_behind_it_leave_it_out(path: Path) -> None:
    primary = Primary(path)
    primary.commit(network("n"))
    rows = list(primary.store.snapshot())
    header = primary.header(requests={f"request {number}": number for number in range(1200)})
    checkpoint = primary.checkpoint_of(header)
    checkpoint.begin()
    checkpoint.write(rows)
    for number in range(16):
        after = primary.commit(write("n", name_label=f"{number}" * 900))
    with pytest.raises(LogFull, match="the commits made meanwhile are"):
        checkpoint.finish()
    checkpoint.abandon()
    assert theirs(path).rows == after
    assert primary.commit(write("n", name_label="and on")) == theirs(path).rows


# ---- checkpoints that fail


@pytest.mark.parametrize("syncs", [0, 1])
def test_a_checkpoint_that_cannot_be_finished_leaves_the_valid_half(path: Path, disk: FaultyDisk, syncs: int) -> None:
    primary = Primary(path, disk)
    primary.commit(network("n"))
    checkpoint = primary.checkpoint_of(primary.header())
    checkpoint.begin()
    checkpoint.write(primary.store.snapshot())
    primary.commit(write("n", name_label="meanwhile"))
    disk.faults = [Fault("sync", skip=syncs)]
    with pytest.raises(RedoLogError):
        checkpoint.finish()
    checkpoint.abandon()  # both halves hold the same: it does not matter which one a start would find
    disk.faults = []
    primary.log.begin(primary.store.generation, primary.store.term)
    after = primary.commit(write("n", name_label="later"))
    assert theirs(path).rows == after
    assert primary.again().rows == after


def test_other_rows_that_may_have_taken_over_are_not_withdrawn_in_silence(path: Path, disk: FaultyDisk) -> None:
    primary = Primary(path, disk)
    primary.commit(network("n"))
    checkpoint = primary.checkpoint_of(primary.header())
    checkpoint.write([])  # as a restore does: nothing is committed meanwhile, and these are not our rows
    disk.faults = [Fault("sync", skip=1)]
    with pytest.raises(RedoLogError):
        checkpoint.finish()
    with pytest.raises(RedoLogError, match="cannot be withdrawn"):
        checkpoint.abandon()


def test_a_commit_that_failed_during_a_checkpoint_ends_it(path: Path, disk: FaultyDisk) -> None:
    """Its rows may lack what went on without the log."""
    primary = Primary(path, disk)
    primary.commit(network("n"))
    checkpoint = primary.checkpoint_of(primary.header())
    checkpoint.begin()
    checkpoint.write(primary.store.snapshot())
    disk.faults = [Fault("sync", times=1)]
    with pytest.raises(RedoLogError):
        primary.commit(write("n", name_label="lost"))
    primary.log.begin(primary.store.generation, primary.store.term)
    with pytest.raises(RedoLogError, match="failed while a checkpoint"):
        checkpoint.finish()
    checkpoint.abandon()
    primary.checkpoint()
    assert theirs(path).rows == primary.rows


def test_a_checkpoint_of_which_only_a_part_was_written_cannot_be_finished(path: Path, disk: FaultyDisk) -> None:
    primary = Primary(path, disk)
    before = primary.commit(network("n"))
    checkpoint = primary.checkpoint_of(primary.header())
    checkpoint.begin()
    disk.faults = [Fault("write", errno.EIO, skip=1)]
    with pytest.raises(RedoLogError, match="checkpoint cannot be written"):
        checkpoint.write(primary.store.snapshot())
    disk.faults = []
    with pytest.raises(RedoLogError, match="not where it was written"):
        checkpoint.finish()
    checkpoint.abandon()
    assert theirs(path).rows == before


# ---- disappearing and coming back


def test_a_device_that_disappears_refuses_and_goes_on_when_it_is_back(path: Path, disk: FaultyDisk) -> None:
    primary = Primary(path, disk)
    primary.commit(network("n"))
    disk.faults = [Fault("sync", errno.ENXIO), Fault("open", errno.ENODEV)]
    with pytest.raises(RedoLogError, match="No such device or address"):
        primary.commit(write("n", name_label="lost"))
    with pytest.raises(RedoLogError, match="cannot be used again: No such device"):
        primary.log.begin(primary.store.generation, primary.store.term)
    disk.faults = []
    primary.log.begin(primary.store.generation, primary.store.term)
    after = primary.commit(write("n", name_label="back"))
    assert theirs(path).rows == after


def fail_once(primary: Primary, disk: FaultyDisk) -> None:
    disk.faults = [Fault("sync", times=1)]
    with pytest.raises(RedoLogError):
        primary.commit(write("n", name_label="lost"))


def test_a_file_that_is_gone_is_not_made_anew_behind_the_pools_back(path: Path, disk: FaultyDisk) -> None:
    primary = Primary(path, disk)
    primary.commit(network("n"))
    fail_once(primary, disk)
    path.unlink()
    with pytest.raises(RedoLogError, match="No such file"):
        primary.log.begin(primary.store.generation, primary.store.term)
    assert not path.exists()


def test_a_device_that_comes_back_empty_gets_all_rows_anew(path: Path, disk: FaultyDisk) -> None:
    primary = Primary(path, disk)
    primary.commit(network("n"))
    fail_once(primary, disk)
    path.write_bytes(bytes(SMALL.size))
    primary.log.begin(primary.store.generation, primary.store.term)
    assert not primary.log.roomy
    entry = primary.entry(write("n", name_label="after"))
    with pytest.raises(LogFull, match="no database that"):
        primary.log.append([entry], True)
    primary.checkpoint()
    primary.log.append([entry], True)
    assert theirs(path).rows == primary.rows


def test_a_device_that_somebody_else_has_written_to_is_left_alone(path: Path, disk: FaultyDisk, tmp_path: Path) -> None:
    primary = Primary(path, disk)
    primary.commit(network("n"))
    fail_once(primary, disk)
    other = Primary(tmp_path / "other")
    expected = other.commit(network("of another coordinator"))
    other.log.close()
    path.write_bytes((tmp_path / "other").read_bytes())
    for _ in range(2):
        with pytest.raises(RedoLogError, match="somebody else"):
            primary.log.begin(primary.store.generation, primary.store.term)
    assert theirs(path).rows == expected


class HangingDisk(Disk):
    """`held`: while it is not set, syncs do not return; `passing`: so many do, all the same."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.held.set()
        self.synced = threading.Event()
        self.passing = 0

    def sync(self, descriptor: int) -> None:
        if self.passing:
            self.passing -= 1
        else:
            self.held.wait(20)
        super().sync(descriptor)
        self.synced.set()


@pytest.mark.parametrize("passing", [0, 1])
def test_a_device_that_hangs_is_given_up_after_a_while_and_what_it_writes_later_does_not_count(
    path: Path, passing: int
) -> None:
    """`passing`: once the length is being written, nobody can say."""
    disk = HangingDisk()
    primary = Primary(path, disk, patience=0.2)
    before = primary.commit(network("n"))
    disk.held.clear()
    disk.passing = passing
    try:
        with pytest.raises(RedoLogError, match=r"no answer for 0\.2 s") as raised:
            primary.commit(write("n", name_label="late"))
        assert isinstance(raised.value, Uncertain) == bool(passing)
        with pytest.raises(RedoLogError, match="still has not answered"):
            primary.log.begin(primary.store.generation, primary.store.term)
    finally:
        disk.held.set()
    while primary.log.device_is_stuck:
        disk.synced.wait(1)
    primary.log.begin(primary.store.generation, primary.store.term)
    assert theirs(path).rows == before
    assert primary.commit(write("n", name_label="later")) == theirs(path).rows
    primary.log.close()


# ---- what a device may be


def test_a_file_that_is_not_there_is_made_with_all_its_room(path: Path) -> None:
    Primary(path)
    assert path.stat().st_size >= SMALL.size
    assert path.stat().st_blocks * 512 >= SMALL.size
    assert not path.with_name("log.new").exists()


def test_a_full_file_system_leaves_no_file(path: Path, disk: FaultyDisk) -> None:
    disk.faults = [Fault("write", errno.ENOSPC)]
    with pytest.raises(RedoLogError, match="cannot be opened: No space left"):
        Primary(path, disk)
    assert list(path.parent.iterdir()) == []


def test_no_file_is_made_without_its_folder_or_among_devices(path: Path) -> None:
    with pytest.raises(RedoLogError, match="no folder"):
        Primary(path / "deeper" / "log")
    with pytest.raises(RedoLogError, match="no such device"):
        Primary(Path("/dev/no-such-disk"))


def test_a_device_that_is_too_small_is_told_how_large_it_must_be(path: Path) -> None:
    path.write_bytes(bytes(100))
    with pytest.raises(RedoLogError, match="it has 100 bytes, a redo log needs 125829138"):
        BlockRedoLog(path).recover()


def test_what_is_no_device_and_no_file_is_refused(path: Path) -> None:
    with pytest.raises(RedoLogError, match="neither a block device nor a file"):
        Primary(path.parent)
    with pytest.raises(RedoLogError, match="neither a block device nor a file"):
        Primary(Path("/dev/null"))


def test_somebody_elses_data_is_not_overwritten_unless_one_says_so(path: Path) -> None:
    data = bytes(SMALL.size - 100) + b"a label at the end" + bytes(82)
    path.write_bytes(data)
    with pytest.raises(RedoLogError, match=r"something that is no redo log.*redo_log_format"):
        Primary(path)
    assert path.read_bytes() == data
    primary = Primary(path, format=True)
    after = primary.commit(network("n"))
    assert primary.again(format=True).rows == after  # a redo log is not formatted again


def test_a_validity_byte_that_names_no_half_is_refused(path: Path) -> None:
    primary = Primary(path)
    primary.commit(network("n"))
    primary.log.close()
    change(path, layout.VALIDITY, b"7")
    with pytest.raises(RedoLogError, match=r"validity byte is b'7'.*empty"):
        Primary(path)


def test_a_second_process_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.db.redo.block.log.LOCK_WAIT", 0.05)
    primary = Primary(path)
    with pytest.raises(RedoLogError, match="another process uses it"):
        Primary(path)
    primary.log.close()
    Primary(path)


def test_a_lock_that_is_about_to_go_is_waited_for(path: Path) -> None:
    """The child of a process that was killed may be writing its checkpoint still."""
    Primary(path).log.close()
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        timer = threading.Timer(0.2, fcntl.flock, (held, fcntl.LOCK_UN))
        timer.start()
        Primary(path)
        timer.join()


def test_a_file_that_cannot_be_written_is_refused(path: Path, disk: FaultyDisk) -> None:
    Primary(path).log.close()
    disk.faults = [Fault("open", errno.EROFS)]
    with pytest.raises(RedoLogError, match="Read-only file system"):
        Primary(path, disk)


# ---- damage


class Damaged:
    """Three batches of commits; `ends`: where the log ended after each, as offsets in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        primary = Primary(path)
        self.rows: list[Rows] = []
        self.ends: list[int] = []
        for number in range(3):
            self.rows.append(primary.commit(network(f"n{number}"), write(f"n{number}", name_label="x")))
            self.ends.append(theirs(path).end)
        primary.log.close()


@pytest.mark.parametrize("back", [10, 40, 60, 300, 860])
def test_damage_to_the_last_batch_ends_the_log_before_it(
    path: Path, back: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes before the end: in the marker, the generation, the texts, the note."""
    log = Damaged(path)
    change(path, log.ends[2] - back, b"\x01#")
    primary = Primary(path)
    assert primary.rows == log.rows[1]
    assert any(record.levelname == "CRITICAL" and "is no commit" in record.message for record in caplog.records)
    after = primary.commit(network("later"))
    assert theirs(path).rows == after
    assert primary.again().rows == after


@pytest.mark.parametrize("place", ["marker", "generation", "text", "length", "all"])
def test_damage_in_the_middle_stops_the_start_until_somebody_gives_up_what_follows(path: Path, place: str) -> None:
    """A length that is gone looks like the end to the original; the batches behind tell us that it is none."""
    log = Damaged(path)
    begin, end = log.ends[0], log.ends[1]
    at, data = {
        "marker": (end - 20, b"#"),
        "generation": (end - 40, b"#"),
        "text": (end - 60, b"#"),
        "length": (begin, bytes(16)),
        "all": (begin, bytes(end - begin)),
    }[place]
    change(path, at, data)
    with pytest.raises(RedoLogError, match=rf"damaged in half 1 at byte {begin - 18} .*follow at byte {end - 18}.*cut"):
        Primary(path)


def test_a_damaged_log_can_be_begun_when_another_one_has_it_all(path: Path) -> None:
    log = Damaged(path)
    change(path, log.ends[0], bytes(16))
    opened = BlockRedoLog(path, geometry=SMALL)
    with pytest.raises(LogLost):
        opened.recover()
    opened.begin(50, 9)
    assert not opened.roomy
    record = LogRecord(generation=51, term=9, changes=[network("after")])
    with pytest.raises(LogFull):
        opened.append([entry(record, 50)], True)
    checkpoint = opened.checkpoint()
    checkpoint.hold(CheckpointHeader(generation=50, term=9, rows=0))
    checkpoint.write([])
    checkpoint.finish()
    assert opened.half is Half.SECOND
    opened.append([entry(record, 50)], True)
    opened.close()
    assert set(recovered_rows(path)) == {("network", "after")}


def test_a_database_that_is_damaged_stops_the_start(path: Path) -> None:
    primary = Primary(path)
    primary.commit(network("n", name_label="findme"))
    primary.checkpoint()
    primary.log.close()
    image = path.read_bytes()
    change(path, image.index(b"findme", SMALL.start(Half.SECOND)), b"F")
    with pytest.raises(RedoLogError, match=r"valid half \(2\).*checksum is wrong"):
        Primary(path)


def test_a_stale_half_is_not_looked_at(path: Path) -> None:
    primary = Primary(path)
    primary.commit(network("n"))
    for number in range(4):
        primary.checkpoint()
        primary.commit(write("n", name_label=str(number)))
    rows = primary.rows
    primary.log.close()
    half = layout.valid_half(path.read_bytes()[:18])
    assert half is not None
    change(path, SMALL.start(half.other), b"#" * SMALL.half)
    assert recovered_rows(path) == rows


# ---- what is remembered


def test_terms_and_requests_come_back(path: Path) -> None:
    primary = Primary(path)
    assert primary.store.term == 1
    primary.commit(network("n"), request="a", task="t", session="s", call="c")
    primary.commit(request="of nothing durable")
    primary.log.append([primary.entry(write("n", name_label="x"), request="b")], True)
    again = primary.again()
    assert again.store.term == 2
    assert again.found.term == 1
    first = again.found.records[0]
    assert (first.request, first.task, first.session, first.call, first.term) == ("a", "t", "s", "c", 1)
    assert set(again.found.requests) == {"a", "of nothing durable", "b"}
    again.checkpoint(requests=again.found.requests)
    last = again.again()
    assert last.found.term == 2
    assert last.found.requests == again.found.requests
    assert last.found.records == []


def test_a_commit_that_a_checkpoint_has_already_is_not_applied_twice_and_its_request_is_known(
    path: Path,
) -> None:
    primary = Primary(path)
    primary.commit(network("n"))
    checkpoint = primary.log.checkpoint()
    checkpoint.begin()
    waiting = primary.entry(write("n", name_label="a"), drop("n"), request="waiting")
    checkpoint.hold(primary.header())
    checkpoint.write(primary.store.snapshot())
    primary.log.append([waiting], True)
    after = primary.commit(network("n", name_label="again"))
    checkpoint.finish()
    assert theirs(path).rows == after
    again = primary.again()
    assert again.rows == after
    assert set(again.found.requests) == {"waiting"}
    assert [record.request for record in again.found.records] == [""]


def test_what_is_volatile_is_not_kept(path: Path) -> None:
    primary = Primary(path)
    primary.commit(network("n", current_operations={"t": "x"}))
    before = path.read_bytes()
    entry = primary.entry(write("n", current_operations={}), durable=False)
    primary.log.append([entry], False)
    primary.log.append([entry], True)
    assert path.read_bytes() == before
    found = primary.again().found
    assert found.boot not in ("", None)  # as after a restart of the machine
    [record] = found.records
    [created] = record.changes
    assert isinstance(created, RowCreated)
    assert created.fields["current_operations"] == {}


def test_a_commit_needs_a_generation_for_each_of_its_deltas(path: Path) -> None:
    primary = Primary(path)
    entry = primary.entry(network("n"), write("n", name_label="a", name_description="b"), drop("n"))
    assert entry.record.generation - entry.previous == 4
    cramped = type(entry)(entry.record, entry.previous + 1, entry.frame)
    with pytest.raises(RedoLogError, match="4 deltas and 3 generations"):
        primary.log.append([cramped], True)


def test_the_original_applies_every_delta_of_ours_and_passes_over_the_notes(path: Path) -> None:
    primary = Primary(path)
    primary.commit(network("n"), write("n", name_label="a", name_description="b"))
    primary.commit(write("n", tags=["x"]))
    found = theirs(path)
    assert found.applied == [("CreateRow", 1), ("WriteFiel", 2), ("WriteFiel", 3), ("WriteFiel", 4)]
    assert found.skipped == 4  # of the database, the term and two commits
    assert found.generation == primary.store.generation
    assert found.rows == rows_of(primary.store)


def test_a_pool_that_has_rows_and_an_empty_device_needs_a_checkpoint_first(path: Path) -> None:
    log = BlockRedoLog(path, geometry=SMALL)
    log.recover()
    log.begin(1000, 7)
    assert not log.roomy
    log.close()


def test_the_originals_geometry() -> None:
    whole = Geometry()
    assert (whole.start(Half.FIRST), whole.start(Half.SECOND), whole.size) == (18, 62914578, 125829138)
    assert layout.header(Half.SECOND) == b"redo-log--------\x002"
