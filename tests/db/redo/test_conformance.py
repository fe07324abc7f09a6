"""What every redo log has to do, whatever is killed, cut, refused or full: one suite, run on each back end.

`backends.py` says which there are and how to add one.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from services.db.redo.interface import RedoLogError, Uncertain
from tests.db.redo.backends import BACKENDS, Backend
from tests.db.redo.primary import Ended, Machine, Primary, judge
from tests.support.faulty_disk import ANY, Crash, CrashingDisk, Fault, FaultyDisk

EVERY = int(os.environ.get("CRASH_EVERY", "5"))
"""Something goes wrong at each fifth operation, at other ones for each way that it does; `CRASH_EVERY=1`: at all."""

FAR = 4
"""Times as rarely where each start is one on a broker, or most of what goes wrong is the local log's."""

DURABLE = [backend for backend in BACKENDS if backend.durable]


@pytest.fixture
def machine(backend: Backend, tmp_path: Path) -> Machine:
    return Machine(backend, tmp_path)


def story(primary: Primary) -> None:
    """Commits alone and together, volatile ones between them, and two checkpoints with commits meanwhile."""
    primary.commit(1)
    primary.commit(2, 3, 4)
    primary.commit_volatile(1)
    primary.checkpoint(5)
    primary.commit(6)
    primary.commit_volatile(2)
    primary.commit(7)
    primary.checkpoint(8, 9)
    primary.commit(10, 11)


def begun_anew(machine: Machine, *, volatile: bool) -> None:
    """Starts, judges, and goes on; twice, since the second start finds what the first one has left."""
    for number in (100, 101):
        primary = machine.start()
        judge(primary, volatile=volatile)
        number += 10 * machine.boots
        assert primary.commit(number), primary.why
        assert primary.commit_volatile(number)
        primary.close()
        volatile = True
    primary = machine.start()
    judge(primary, volatile=True)
    primary.close()


# ---- without failures


def test_what_was_appended_comes_back(machine: Machine) -> None:
    primary = machine.start()
    story(primary)
    primary.close()
    begun_anew(machine, volatile=True)


def test_a_start_finds_the_same_when_nothing_was_done_since_the_last_one(machine: Machine) -> None:
    primary = machine.start()
    story(primary)
    primary.close()
    for _ in range(3):
        primary = machine.start()
        judge(primary, volatile=True)
        primary.close()


def test_what_is_volatile_ends_with_the_machine_and_stays_ended(machine: Machine) -> None:
    if not machine.backend.durable:
        pytest.skip("nothing outlives the machine")
    primary = machine.start()
    story(primary)
    primary.close()
    machine.power_cut(random.Random(1), torn=False)
    begun_anew(machine, volatile=False)
    machine.power_cut(random.Random(1), torn=False)
    begun_anew(machine, volatile=False)


def test_a_checkpoint_that_is_abandoned_leaves_everything_as_it_was(machine: Machine) -> None:
    primary = machine.start()
    primary.commit(1)
    for step in range(3):
        made = primary.log.checkpoint()
        made.begin()
        made.hold(primary.header())
        primary.commit(10 + step)
        if step > 0:
            made.write(list(primary.store.snapshot()))
        made.abandon()
        primary.commit(20 + step)
    primary.close()
    begun_anew(machine, volatile=True)


def test_a_full_log_says_so_and_a_checkpoint_makes_room(machine: Machine) -> None:
    primary = machine.start()
    assert primary.commit(1)
    for number in range(100, 200):
        primary.overwrite(number)
    if machine.backend.full:
        assert primary.checkpoints_for_room > 0
    primary.close()
    begun_anew(machine, volatile=True)


# ---- crashes


def step(backend: Backend) -> int:
    return EVERY * FAR if backend.rarely else EVERY


def operations(machine: Machine) -> int:
    """How many the story takes."""
    disk = CrashingDisk(machine.disk())
    primary = machine.start(disk)
    story(primary)
    primary.crash()
    return disk.count


def crashed(machine: Machine, at: int) -> None:
    """The story ends at that operation."""
    disk = CrashingDisk(machine.disk(), at)
    primary = None
    try:
        primary = machine.start(disk)
        story(primary)
    except Crash:
        pass
    if primary is not None:
        primary.crash()
    disk.release()


@pytest.mark.parametrize("end", ["kill", "power", "torn"])
def test_a_crash_at_any_operation_loses_nothing_and_leaves_no_half(backend: Backend, tmp_path: Path, end: str) -> None:
    if end != "kill" and not backend.durable:
        pytest.skip("nothing outlives the machine")
    (tmp_path / "count").mkdir()
    shift, every = ("kill", "power", "torn").index(end), step(backend)
    for at in range(shift % every, operations(Machine(backend, tmp_path / "count")), every):
        folder = tmp_path / str(at)
        folder.mkdir()
        machine = Machine(backend, folder)
        crashed(machine, at)
        if end != "kill":
            machine.power_cut(random.Random(at), torn=end == "torn")
        try:
            begun_anew(machine, volatile=end == "kill")
        except (AssertionError, RedoLogError) as error:
            raise AssertionError(f"after a crash at operation {at}: {error}") from error


# ---- errors


FAULTS = {
    "EIO": Fault(ANY, errno.EIO, times=1),
    "EIO, three times": Fault(ANY, errno.EIO, times=3),
    "ENOSPC": Fault("write", errno.ENOSPC, times=1),
    "ENOSPC in the middle": Fault("write", errno.ENOSPC, times=2, room=10),
    "short writes": Fault("write", 0, times=5),
    "sync": Fault("sync", errno.EIO, times=1),
    "sync and what follows": Fault("sync", errno.EIO, times=2),
}


@pytest.mark.parametrize("end", ["kill", "power"])
@pytest.mark.parametrize("name", FAULTS)
def test_an_error_at_any_operation_refuses_and_loses_nothing(
    backend: Backend, tmp_path: Path, name: str, end: str
) -> None:
    if end != "kill" and not backend.durable:
        pytest.skip("nothing outlives the machine")
    fault, more, every = FAULTS[name], True, step(backend)
    at = (list(FAULTS).index(name) + (end == "power")) % every
    while more:
        folder = tmp_path / str(at)
        folder.mkdir()
        machine = Machine(backend, folder)
        disk = FaultyDisk(machine.disk())
        primary = machine.start(disk)
        disk.faults.append(Fault(fault.step, fault.error, skip=at, times=fault.times, room=fault.room))
        try:
            try:
                story(primary)
            except (Ended, Uncertain):
                primary.crash()
            else:
                disk.faults.clear()
                assert primary.commit(50), f"the disk is well again, the log is not: {primary.why}"
                primary.close()
            more = disk.failures > 0
            if end != "kill":
                machine.power_cut(random.Random(at), torn=at % 2 == 1)
            begun_anew(machine, volatile=end == "kill")
        except (AssertionError, RedoLogError) as error:
            raise AssertionError(f"{name} at operation {at}: {error}") from error
        at += every


def test_a_log_that_stays_broken_refuses_everything_until_it_is_well(machine: Machine) -> None:
    disk = FaultyDisk(machine.disk())
    primary = machine.start(disk)
    assert primary.commit(1)
    disk.faults.append(Fault(ANY, errno.EIO))
    if machine.backend.durable:
        for number in range(2, 8):
            assert not primary.commit(number)
    assert not primary.checkpoint()
    disk.faults.clear()
    assert primary.commit(10) or primary.commit(12), primary.why
    assert primary.checkpoint(11)
    primary.close()
    begun_anew(machine, volatile=True)


def test_a_start_on_a_disk_that_refuses_says_so_and_the_next_one_finds_everything(machine: Machine) -> None:
    primary = machine.start()
    story(primary)
    primary.close()
    for step in ("write", "sync"):
        disk = FaultyDisk(machine.disk())
        disk.faults.append(Fault(step, errno.ENOSPC if step == "write" else errno.EIO))
        with pytest.raises(RedoLogError):
            machine.start(disk)
    begun_anew(machine, volatile=True)


# ---- what disappears, and what is damaged


def test_a_log_that_disappears_and_comes_back_has_everything(machine: Machine) -> None:
    primary = machine.start()
    assert primary.commit(1)
    away = machine.folder.with_name("away")
    machine.folder.rename(away)
    for number in range(2, 5):
        primary.commit(number)
    assert not primary.checkpoint()
    primary.commit(5)
    away.rename(machine.folder)
    primary.commit(6)
    assert primary.commit(7)
    assert primary.checkpoint()
    primary.close()
    begun_anew(machine, volatile=True)


@pytest.mark.parametrize(
    "backend", [each for each in DURABLE if each.checked and not each.elsewhere], ids=str, indirect=True
)
def test_damage_in_the_middle_stops_the_start_and_names_the_place(machine: Machine) -> None:
    primary = machine.start()
    for number in range(1, 9):
        assert primary.commit(number)
    primary.close()
    machine.boots += 1  # the journal beside another log is not asked
    path = max(machine.folder.rglob(machine.backend.records))
    data = bytearray(path.read_bytes())
    at = data.index(b"OpaqueRef:4")
    data[at : at + 11] = b"OpaqueRef:Z"
    path.write_bytes(data)
    with pytest.raises(RedoLogError, match=path.name):
        machine.start()
    assert path.read_bytes() == data, "what is damaged is left for people to look at"
