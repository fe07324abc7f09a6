"""Two logs as one: the back end decides what was committed, the journal keeps what only the process may lose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from services.db.redo.file import FileRedoLog
from services.db.redo.interface import CheckpointHeader, Entry, LogLost, LogRecord, Recovered, RedoLogError, entry
from services.db.redo.layered import LayeredRedoLog
from services.db.redo.off import NoRedoLog
from shared.contracts.db import RowCreated, SnapshotRow

BOOT = "boot-1"


class BackEnd(FileRedoLog):
    """Stands for a log elsewhere; fails when told to."""

    broken = ""

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        if self.broken:
            raise RedoLogError(self.broken)
        super().append(entries, sync)


def commit(generation: int, *, durable: bool = True, term: int = 1) -> Entry:
    change = RowCreated(cls="network", ref=f"r{generation}", fields={})
    return entry(LogRecord(generation=generation, term=term, changes=[change], durable=durable), generation - 1)


class Machine:
    """The two places. The back end's may be seen from another machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def journal(self) -> Path:
        return self._folder / "journal"

    def log(self, boot: str = BOOT) -> tuple[LayeredRedoLog, BackEnd]:
        journal = FileRedoLog(self.journal, boot, synced=False)
        durable = BackEnd(self._folder / "elsewhere", boot)
        return LayeredRedoLog(journal, durable), durable

    def lose_journal(self) -> None:
        for path in self.journal.iterdir():
            path.unlink()

    def found(self, boot: str = BOOT) -> list[int]:
        return [record.generation for record in self.log(boot)[0].recover().records]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def begun(machine: Machine) -> tuple[LayeredRedoLog, BackEnd]:
    log, durable = machine.log()
    log.recover()
    log.begin(0, 1)
    return log, durable


def test_a_killed_process_loses_nothing_and_a_lost_machine_only_what_is_volatile(machine: Machine) -> None:
    log, _ = begun(machine)
    log.append([commit(1), commit(2, durable=False)], sync=True)
    log.append([commit(3, durable=False)], sync=False)
    assert machine.found() == [1, 2, 3]
    assert machine.found(boot="boot-2") == [1]
    machine.lose_journal()
    assert machine.found() == [1]


def test_what_the_back_end_refuses_is_not_in_the_journal_either(machine: Machine) -> None:
    log, durable = begun(machine)
    log.append([commit(1)], sync=True)
    durable.broken = "device gone"
    with pytest.raises(RedoLogError, match="device gone"):
        log.append([commit(2)], sync=True)
    durable.broken = ""
    log.append([commit(3)], sync=True)
    assert machine.found() == machine.found(boot="boot-2") == [1, 3]


def test_a_journal_of_an_older_term_is_passed_over(machine: Machine) -> None:
    """Another machine has used the back end meanwhile."""
    log, _ = begun(machine)
    log.append([commit(1), commit(2, durable=False), commit(3, durable=False)], sync=True)
    _, elsewhere = machine.log()
    elsewhere.recover()
    elsewhere.begin(1, 2)
    elsewhere.append([commit(2, term=2)], sync=True)
    assert machine.found() == [1, 2]


def test_a_damaged_journal_is_passed_over(machine: Machine, tmp_path: Path) -> None:
    log, _ = begun(machine)
    log.append([commit(1)], sync=True)
    log.begin(1, 2)
    log.append([commit(2)], sync=True)
    first = min((tmp_path / "journal").iterdir())
    first.write_bytes(first.read_bytes()[:-3])
    assert machine.found() == [1, 2]


def test_a_checkpoint_is_in_both(machine: Machine) -> None:
    log, _ = begun(machine)
    log.append([commit(1)], sync=True)
    made = log.checkpoint()
    made.begin()
    made.hold(CheckpointHeader(generation=1, term=1, rows=1, boot=BOOT))
    made.write([SnapshotRow(cls="network", ref="r1", created=1, modified=1, fields={})])
    made.finish()
    made.tidy()
    log.append([commit(2)], sync=True)
    for boot in (BOOT, "boot-2"):
        found = machine.log(boot)[0].recover()
        assert ([row.ref for row in found.rows], [record.generation for record in found.records]) == (["r1"], [2])


def test_without_a_back_end_the_journal_is_used_after_a_restart_of_the_machine_too(tmp_path: Path) -> None:
    def log(boot: str) -> LayeredRedoLog:
        return LayeredRedoLog(FileRedoLog(tmp_path, boot, synced=False), NoRedoLog())

    first = log(BOOT)
    first.recover()
    first.begin(0, 1)
    first.append([commit(1), commit(2, durable=False)], sync=True)
    assert [record.generation for record in log("boot-2").recover().records] == [1]


def test_what_another_machine_has_committed_is_in_the_journal_before_anything_follows_it(machine: Machine) -> None:
    log, _ = begun(machine)
    log.append([commit(1), commit(2, durable=False)], sync=True)
    _, elsewhere = machine.log()
    elsewhere.recover()
    elsewhere.begin(1, 2)
    elsewhere.append([commit(2)], sync=True)
    elsewhere.close()
    again, _ = machine.log()
    assert [record.generation for record in again.recover().records] == [1, 2]
    again.begin(2, 3)
    again.append([commit(3), commit(4, durable=False)], sync=True)
    assert machine.found() == [1, 2, 3, 4], "the journal counts again, and lacks nothing"


def test_what_is_committed_after_a_restart_of_the_machine_follows_what_was_before_it(machine: Machine) -> None:
    log, _ = begun(machine)
    log.append([commit(1), commit(2, durable=False)], sync=True)
    log.close()
    machine.lose_journal()  # nothing of it was synced
    rebooted, _ = machine.log("boot-2")
    assert [record.generation for record in rebooted.recover().records] == [1]
    rebooted.begin(10, 2)
    rebooted.append([commit(11), commit(12, durable=False)], sync=True)
    assert machine.found("boot-2") == [1, 11, 12]


def test_a_copy_that_was_not_finished_does_not_count(machine: Machine, tmp_path: Path) -> None:
    log, _ = begun(machine)
    log.append([commit(1)], sync=True)
    machine.lose_journal()
    (tmp_path / "journal" / "doubtful").touch()
    assert machine.found() == [1]
    assert not (tmp_path / "journal" / "doubtful").exists()


def test_a_back_end_that_is_new_gets_what_the_journal_has_though_the_machine_was_restarted(machine: Machine) -> None:
    file = FileRedoLog(machine.journal, BOOT)
    file.recover()
    file.begin(0, 1)
    file.append([commit(1)], sync=True)
    assert machine.found("boot-2") == [1]


def test_the_journal_makes_up_for_a_back_end_that_has_lost_commits_within_the_same_boot(machine: Machine) -> None:
    log, _ = begun(machine)
    log.append([commit(1), commit(2, durable=False)], sync=True)

    class Lossy(BackEnd):
        def recover(self) -> Recovered:
            raise LogLost("number 1 is missing")

    def started(boot: str) -> LayeredRedoLog:
        return LayeredRedoLog(FileRedoLog(machine.journal, boot, synced=False), Lossy(machine.journal, boot))

    assert [record.generation for record in started(BOOT).recover().records] == [1, 2]
    with pytest.raises(LogLost, match="number 1"):
        started("boot-2").recover()
