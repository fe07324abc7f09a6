"""The log on a disk as well, without the process around it: what it has, whatever fails of the two, and when."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from services.db.disk import Disk
from services.db.redo.block.log import BlockRedoLog
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import RedoLogError
from shared.contracts.db import Delta, RowCreated
from shared.store import Store
from tests.db.redo.backends import SMALL, Backend, Mirrored
from tests.db.redo.primary import Machine, Primary, judge
from tests.support.faulty_disk import Fault, FaultyDisk


class Hanging(Disk):
    """Syncs of the device wait, while `closed`."""

    def __init__(self) -> None:
        self.open_ = threading.Event()
        self.open_.set()

    def sync(self, descriptor: int) -> None:
        self.open_.wait()
        super().sync(descriptor)


def machine_of(folder: Path, local: Disk, device: Disk, patience: float = 30.0) -> Machine:
    """`local`, `device`: by which the two logs write."""

    def open_mirrored(folder: Path, _: Disk, boot: str) -> Mirrored:
        def copy(path: Path, writes: bool) -> BlockRedoLog:
            return BlockRedoLog(path, device, geometry=SMALL, patience=patience, primary=lambda: writes)

        return Mirrored(folder, FileRedoLog(folder / "redo", boot, local), copy)

    return Machine(Backend("mirrored", open_mirrored), folder)


def mirrored(primary: Primary) -> Mirrored:
    assert isinstance(primary.log, Mirrored)
    return primary.log


def take_up(primary: Primary) -> None:
    """As the process does when the pause is over."""
    log = mirrored(primary)
    log.take_up(*log.look())


def on_disk(machine: Machine) -> set[str]:
    found = BlockRedoLog(machine.folder / "device", geometry=SMALL, primary=lambda: False).look()
    made = {change.ref for record in found.records for change in record.changes}
    return {row.ref for row in found.rows} | made


def begun_again(machine: Machine) -> None:
    primary = machine.start()
    judge(primary, volatile=True)
    primary.close()


def test_a_disk_that_is_full_at_a_commit_whose_second_try_the_local_log_refuses_leaves_a_log_that_can_be_read(
    tmp_path: Path,
) -> None:
    local = FaultyDisk()
    machine = machine_of(tmp_path, local, Disk())
    primary = machine.start()
    fill = primary.checkpoint

    def fill_and_fail() -> bool:
        counts = fill()
        local.faults = [Fault("sync", errno.EIO, times=2)]
        return counts

    primary.checkpoint = fill_and_fail  # type: ignore[method-assign, assignment]
    number = 1
    while not local.failures:
        number += 1
        primary.commit(number)
    assert not primary.healthy
    primary.checkpoint = fill  # type: ignore[method-assign]
    assert primary.commit(number + 1), primary.why
    primary.close()
    begun_again(machine)


def test_a_disk_that_was_given_up_is_used_again_once_it_has_answered(tmp_path: Path) -> None:
    device = Hanging()
    machine = machine_of(tmp_path, Disk(), device, patience=0.3)
    primary = machine.start()
    assert primary.commit(1)
    device.open_.clear()
    assert primary.commit(2)
    assert mirrored(primary).state == "broken"
    device.open_.set()
    take_up(primary)
    assert mirrored(primary).state == "empty"
    assert primary.checkpoint()
    assert primary.commit(3)
    assert on_disk(machine) >= {"OpaqueRef:1", "OpaqueRef:2", "OpaqueRef:3"}
    primary.close()
    begun_again(machine)


@pytest.mark.parametrize("broken", [False, True])
def test_what_was_acknowledged_without_any_log_is_on_the_disk_before_that_is_current_again(
    tmp_path: Path, broken: bool
) -> None:
    """By the policy `continue`."""
    local, device = FaultyDisk(), FaultyDisk()
    machine = machine_of(tmp_path, local, device)
    primary = machine.start()
    assert primary.commit(1)
    if broken:
        device.faults = [Fault("write")]
        assert primary.commit(2)
        device.faults = []
    local.faults = [Fault("write")]
    entry = primary._entry(3)
    with pytest.raises(RedoLogError):
        primary.log.append([entry], sync=True)
    local.faults = []
    primary.log.begin(entry.record.generation, primary.store.term)
    if broken:
        take_up(primary)
    assert mirrored(primary).state == "empty"
    assert primary.checkpoint()
    assert mirrored(primary).state == "current"
    assert "OpaqueRef:3" in on_disk(machine)
    primary.close()


def test_rows_that_are_replaced_while_all_are_written_are_written_anew_and_the_disk_is_not_broken(
    tmp_path: Path,
) -> None:
    machine = machine_of(tmp_path, Disk(), Disk())
    primary = machine.start()
    assert primary.commit(1)
    log = mirrored(primary)
    log.use(log.path, fresh=True)
    take_up(primary)
    fill = log.copy_checkpoint()
    fill.begin()
    fill.hold(primary.header())
    fill.write(list(primary.store.snapshot()))
    replaced = super(Mirrored, log).checkpoint()
    replaced.hold(primary.header())
    replaced.write(list(primary.store.snapshot()))
    replaced.finish()
    log.begin(primary.store.generation, primary.store.term)
    with pytest.raises(RedoLogError):
        fill.finish()
    fill.abandon()
    assert log.state == "empty"
    primary.close()


def test_a_disk_that_has_the_restored_rows_of_another_pool_is_ours_when_it_comes_back(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, Disk(), Disk())
    primary = machine.start()
    entry = primary._applied([RowCreated(cls="pool", ref="p", fields={"uuid": "ours"})], durable=True)
    primary.log.append([entry], sync=True)
    primary.close()
    primary = machine.start()
    log = mirrored(primary)
    theirs = Store()
    made = RowCreated(cls="pool", ref="q", fields={"uuid": "theirs"})
    theirs.apply(Delta(term=1, generation=1, previous=0, changes=[made]))
    restored = super(Mirrored, log).checkpoint()
    restored.hold(primary.header())
    restored.write(theirs.snapshot())
    restored.finish()
    log.begin(primary.store.generation, primary.store.term)
    fill = log.copy_checkpoint()
    fill.begin()
    fill.hold(primary.header())
    fill.write(theirs.snapshot())
    fill.finish()
    log.use(log.path)
    take_up(primary)
    assert log.state == "current"
    primary.close()


def unreadable(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"not a redo log")


def test_a_start_with_rows_of_its_own_does_without_a_disk_that_cannot_be_read_and_one_without_does_not(
    tmp_path: Path,
) -> None:
    machine = machine_of(tmp_path, Disk(), Disk())
    primary = machine.start()
    assert primary.commit(1)
    primary.close()
    unreadable(machine.folder / "device")
    begun_again(machine)
    for path in (machine.folder / "redo").iterdir():
        path.unlink()
    with pytest.raises(RedoLogError, match="device"):
        machine.start()
