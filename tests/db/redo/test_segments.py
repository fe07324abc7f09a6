"""The file log's segments: what is damaged or missing is noticed, whatever else is there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from services.db.redo import segments
from services.db.redo.interface import RedoLogError, Uncertain
from tests.db.redo.backends import BACKENDS
from tests.db.redo.primary import Machine, Primary, judge
from tests.support.faulty_disk import ANY, Fault, FaultyDisk

FILE = next(backend for backend in BACKENDS if backend.kind == "file")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(FILE, tmp_path)


def files(machine: Machine, pattern: str) -> list[Path]:
    return sorted((machine.folder / "redo").glob(pattern))


def two_checkpoints(machine: Machine) -> Primary:
    primary = machine.start()
    for number in range(1, 4):
        assert primary.commit(number)
    assert primary.checkpoint(4)
    assert primary.commit(5)
    assert primary.checkpoint(6)
    assert primary.commit(7)
    return primary


def test_a_damaged_checkpoint_stops_the_start_when_nothing_else_has_its_commits(machine: Machine) -> None:
    two_checkpoints(machine).close()
    (path,) = files(machine, "checkpoint-*.db")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RedoLogError, match=path.name):
        machine.start()


def test_an_older_checkpoint_does_while_the_commits_after_it_are_there(machine: Machine) -> None:
    """A start that comes before what the newer one replaces was removed."""
    primary = machine.start()
    assert primary.commit(1)
    assert primary.checkpoint()
    assert primary.commit(2)
    made = primary.log.checkpoint()
    made.begin()
    made.hold(primary.header())
    made.write(list(primary.store.snapshot()))
    made.finish()
    primary.close()
    older, newer = files(machine, "checkpoint-*.db")
    newer.write_bytes(older.read_bytes()[:-4])
    primary = machine.start()
    judge(primary, volatile=True)
    primary.close()


def test_a_segment_that_is_gone_stops_the_start(machine: Machine) -> None:
    primary = machine.start()
    for number in range(1, 4):
        assert primary.commit(number)
        primary.log.begin(primary.store.generation, primary.store.term)
    primary.close()
    files(machine, "redo-*.log")[1].unlink()
    with pytest.raises(RedoLogError, match=r"missing"):
        machine.start()


def test_the_last_batch_may_be_torn_and_no_other(machine: Machine) -> None:
    primary = machine.start()
    for number in range(1, 4):
        assert primary.commit(number)
    primary.close()
    path = files(machine, "redo-*.log")[-1]
    whole = path.read_bytes()
    ends = [segment.end for segment in segments.chain(path.parent)]
    assert ends == [len(whole)]
    for cut in (1, 100, 700):
        path.write_bytes(whole[:-cut])
        segment = segments.last(path.parent)
        assert segment is not None
        assert 1 <= len(list(segment.records())) <= 2
    at = whole.index(b"OpaqueRef:2")
    path.write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    segment = segments.last(path.parent)
    assert segment is not None
    with pytest.raises(RedoLogError, match="damaged at byte"):
        list(segment.records())


def test_what_can_be_neither_undone_nor_shut_out_is_not_refused(machine: Machine) -> None:
    disk = FaultyDisk(machine.disk())
    primary = machine.start(disk)
    assert primary.commit(1)
    disk.faults += [Fault(step, errno.EIO) for step in ("sync", "truncate", "open")]
    with pytest.raises(Uncertain):
        primary.commit(2)
    primary.crash()
    disk.faults.clear()
    primary = machine.start()
    judge(primary, volatile=True)
    assert primary.known.acknowledged == [1, 2]
    primary.close()


def test_a_checkpoint_that_never_had_its_name_can_be_abandoned_on_a_dead_disk(machine: Machine) -> None:
    disk = FaultyDisk(machine.disk())
    primary = machine.start(disk)
    assert primary.commit(1)
    made = primary.log.checkpoint()
    made.begin()
    made.hold(primary.header())
    disk.faults.append(Fault(ANY, errno.EIO))
    with pytest.raises(RedoLogError):
        made.write(list(primary.store.snapshot()))
    made.abandon()
    disk.faults.clear()
    assert primary.commit(2)
    primary.close()
    primary = machine.start()
    judge(primary, volatile=True)
    primary.close()
