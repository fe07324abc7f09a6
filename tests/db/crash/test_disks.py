"""The model of a disk: what was synced is there after a power cut, what was not is gone or torn."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.db.disk import Disk
from tests.support.faulty_disk import Crash, CrashingDisk, Fault, FaultyDisk
from tests.support.lossy_disk import SECTOR, LossyDisk, lose

CREATE = os.O_RDWR | os.O_CREAT


@dataclass
class Machine:
    """A folder on a disk whose power can be cut."""

    folder: Path
    image: Path

    def disk(self) -> LossyDisk:
        return LossyDisk(self.folder, self.image)

    def power_cut(self, *, torn: bool = False, seed: int = 1) -> None:
        lose(self.image, random.Random(seed), torn=torn)

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "data").mkdir()
    return Machine(tmp_path / "data", tmp_path / "image")


def made(disk: Disk, path: Path, data: bytes, *, sync: bool = True, name: bool = True) -> int:
    descriptor = disk.open(path, CREATE)
    disk.write_all(descriptor, data, 0)
    if sync:
        disk.sync(descriptor)
    if name:
        disk.sync_folder(path.parent)
    return descriptor


def test_what_was_synced_stays_and_what_was_written_later_goes(machine: Machine) -> None:
    disk = machine.disk()
    descriptor = made(disk, machine.folder / "f", b"one")
    disk.write_all(descriptor, b"two", 3)
    assert machine.content() == {"f": b"onetwo"}
    disk.close(descriptor)
    machine.power_cut()
    assert machine.content() == {"f": b"one"}


def test_bytes_written_over_and_a_shorter_length_go_back(machine: Machine) -> None:
    disk = machine.disk()
    descriptor = made(disk, machine.folder / "f", b"abcdef")
    disk.truncate(descriptor, 2)
    disk.write_all(descriptor, b"X", 0)
    assert machine.content() == {"f": b"Xb"}
    machine.power_cut()
    assert machine.content() == {"f": b"abcdef"}
    disk = machine.disk()
    descriptor = disk.open(machine.folder / "f", os.O_RDWR)
    disk.truncate(descriptor, 2)
    disk.sync(descriptor)
    machine.power_cut()
    assert machine.content() == {"f": b"ab"}


def test_a_new_name_is_lost_without_a_sync_of_its_folder(machine: Machine) -> None:
    disk = machine.disk()
    made(disk, machine.folder / "f", b"one", name=False)
    machine.power_cut()
    assert machine.content() == {}


def test_a_rename_or_removal_counts_when_the_folder_was_synced(machine: Machine) -> None:
    disk = machine.disk()
    made(disk, machine.folder / "old", b"old")
    made(disk, machine.folder / "new", b"new")
    disk.rename(machine.folder / "new", machine.folder / "old")
    disk.unlink(machine.folder / "never there")
    assert machine.content() == {"old": b"new"}
    machine.power_cut()
    assert machine.content() == {"old": b"old", "new": b"new"}
    disk = machine.disk()
    disk.rename(machine.folder / "new", machine.folder / "old")
    disk.sync_folder(machine.folder)
    machine.power_cut()
    assert machine.content() == {"old": b"new"}


def test_what_a_forked_child_synced_is_durable(machine: Machine) -> None:
    disk = machine.disk()
    child = os.fork()
    if child == 0:
        made(disk, machine.folder / "f", b"child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    machine.power_cut()
    assert machine.content() == {"f": b"child"}


def test_after_a_kill_alone_everything_is_there_and_still_not_durable(machine: Machine) -> None:
    disk = machine.disk()
    descriptor = made(disk, machine.folder / "f", b"one")
    disk.write_all(descriptor, b"two", 3)
    disk.close(descriptor)
    again = machine.disk()
    assert machine.content() == {"f": b"onetwo"}
    descriptor = again.open(machine.folder / "f", os.O_RDWR)
    again.sync(descriptor)
    machine.power_cut()
    assert machine.content() == {"f": b"onetwo"}


def test_a_torn_write_leaves_each_sector_old_or_new(machine: Machine) -> None:
    old, new = b"o" * SECTOR * 8, b"n" * SECTOR * 8
    found = set()
    for seed in range(30):
        disk = machine.disk()
        descriptor = made(disk, machine.folder / "f", old)
        disk.write_all(descriptor, new, 0)
        disk.close(descriptor)
        machine.power_cut(torn=True, seed=seed)
        data = machine.content()["f"]
        sectors = {data[at : at + SECTOR] for at in range(0, len(data), SECTOR)}
        assert sectors <= {old[:SECTOR], new[:SECTOR]}
        found.add(len(sectors))
    assert found == {1, 2}, "some were torn, some were not"


def test_a_torn_end_is_cut_or_has_holes(machine: Machine) -> None:
    lengths = set()
    for seed in range(30):
        (machine.folder / "f").unlink(missing_ok=True)
        disk = machine.disk()
        descriptor = made(disk, machine.folder / "f", b"a" * SECTOR)
        disk.write_all(descriptor, b"b" * SECTOR * 4, SECTOR)
        disk.close(descriptor)
        machine.power_cut(torn=True, seed=seed)
        data = machine.content()["f"]
        assert data.startswith(b"a" * SECTOR)
        assert set(data[SECTOR:]) <= {ord("b"), 0}
        lengths.add(len(data))
    assert len(lengths) > 1


def test_a_sync_that_failed_loses_its_bytes_though_the_next_one_succeeds(machine: Machine) -> None:
    disk = FaultyDisk(machine.disk())
    descriptor = made(disk, machine.folder / "f", b"one")
    disk.faults.append(Fault("sync", errno.EIO, times=1))
    disk.write_all(descriptor, b"two", 3)
    with pytest.raises(OSError, match="Input/output error"):
        disk.sync(descriptor)
    disk.write_all(descriptor, b"three", 6)
    disk.sync(descriptor)
    machine.power_cut()
    assert machine.content() == {"f": b"one\0\0\0three"}


def test_a_full_disk_takes_what_fits_and_a_short_write_goes_on(machine: Machine) -> None:
    disk = FaultyDisk()
    disk.faults.append(Fault("write", errno.ENOSPC, skip=1, times=1, room=2))
    descriptor = made(disk, machine.folder / "f", b"one")
    with pytest.raises(OSError, match="No space left"):
        disk.write_all(descriptor, b"two", 3)
    assert machine.content() == {"f": b"onetw"}
    disk.faults.append(Fault("write", 0, times=2))
    disk.write_all(descriptor, b"two and three", 3)
    assert machine.content() == {"f": b"onetwo and three"}
    assert disk.failures == 3


def test_a_crash_ends_everything_at_that_operation(machine: Machine) -> None:
    disk = CrashingDisk(machine.disk(), at=1)
    with pytest.raises(Crash):
        made(disk, machine.folder / "f", b"a" * SECTOR * 4)
    assert machine.content() == {"f": b"a" * SECTOR * 2}
    with pytest.raises(Crash):
        disk.sync_folder(machine.folder)
    disk.release()
    machine.power_cut()
    assert machine.content() == {}
