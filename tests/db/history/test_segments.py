"""The files of the history: what is written is found again, the oldest goes, damage costs what it hit."""

from __future__ import annotations

import errno
import logging
import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from services.db.disk import Disk
from services.db.history import search, segments
from services.db.history.segments import Segments
from shared.contracts.db_history import HistoryEntry, HistoryRequest
from tests.db.history.commits import entry
from tests.support.faulty_disk import Crash, CrashingDisk, Fault, FaultyDisk
from tests.support.lossy_disk import LossyDisk, lose

NOW = 2000.0


def opened(folder: Path, limit: int = 1 << 30, days: float = 30, disk: Disk | None = None) -> Segments:
    found = Segments(folder, limit, days, disk or Disk())
    found.open()
    return found


def generations(found: Segments, **request: object) -> list[int]:
    """Of all entries, the oldest first."""
    entries: list[HistoryEntry] = []
    token = ""
    while True:
        page = search.page(found, HistoryRequest(oldest_first=True, limit=1000, token=token, **request))  # type: ignore[arg-type]
        entries += page.entries
        token = page.token
        if not page.more:
            return [one.generation for one in entries]


def fill(found: Segments, numbers: Iterable[int], batch: int = 10, now: float = NOW) -> None:
    waiting: list[HistoryEntry] = []
    for number in numbers:
        waiting.append(entry(number, note=os.urandom(60).hex()))  # so that it cannot be compressed away
        if len(waiting) == batch:
            found.append(waiting)
            found.keep_limits(now)
            waiting = []
    if waiting:
        found.append(waiting)


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))


def test_what_was_written_is_there_after_a_restart_and_numbers_go_on(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.append([entry(1), entry(2)])
    found.append([entry(3)])
    found.close()
    again = Segments(tmp_path, 1 << 30, 30, Disk())
    assert again.open() == 3
    again.append([entry(4)])
    assert (generations(again), again.next) == ([1, 2, 3, 4], 4)
    again.close()


def test_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.append([entry(1)])
    found.append([entry(2)])
    found.close()
    [path] = files(tmp_path, ".log")
    os.truncate(path, path.stat().st_size - 3)
    again = opened(tmp_path)
    again.append([entry(3)])
    assert generations(again) == [1, 3]
    again.close()
    last = opened(tmp_path)
    assert generations(last) == [1, 3]
    last.close()


def test_a_full_segment_is_rewritten_in_less_room_and_nothing_is_lost(tmp_path: Path) -> None:
    found = opened(tmp_path, limit=16 * segments.SMALLEST_SEGMENT)
    fill(found, range(1, 400), batch=1)
    first, *_, last = files(tmp_path, ".log")
    assert first.stat().st_size < segments.SMALLEST_SEGMENT * 0.7
    assert last.with_suffix(".idx") not in files(tmp_path, ".idx")
    assert len(files(tmp_path, ".idx")) == len(files(tmp_path, ".log")) - 1
    assert found.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert generations(found) == list(range(1, 400))
    found.close()


def test_the_oldest_go_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    limit = 16 * segments.SMALLEST_SEGMENT
    found = opened(tmp_path, limit=limit)
    fill(found, range(1, 4000))
    found.keep_limits(NOW)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    left = generations(found)
    assert 1000 < len(left) < 3990
    assert left == list(range(left[0], 4000))
    found.close()
    again = opened(tmp_path, limit=limit)
    assert generations(again) == left
    again.close()


def test_the_oldest_go_when_they_are_too_old(tmp_path: Path) -> None:
    found = opened(tmp_path, days=1.0)
    fill(found, range(1, 11), now=1010)
    found.keep_limits(60_000)  # as happens once a minute
    fill(found, range(80_000, 80_010), now=81_010)
    assert generations(found) == [*range(1, 11), *range(80_000, 80_010)]
    found.keep_limits(1010 + segments.DAY + 1)
    assert generations(found) == list(range(80_000, 80_010))
    found.close()


def test_an_index_that_is_missing_or_of_another_file_is_made_again(tmp_path: Path) -> None:
    found = opened(tmp_path, limit=16 * segments.SMALLEST_SEGMENT)
    fill(found, range(1, 400))
    one, two = files(tmp_path, ".idx")[:2]
    two.write_bytes(one.read_bytes())
    one.unlink()
    assert generations(found, ref="OpaqueRef:1") == list(range(1, 400))
    assert one.exists()
    assert one.read_bytes() != two.read_bytes()
    found.close()


def test_damage_costs_the_blocks_it_hit_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = opened(tmp_path, limit=1 << 22)
    fill(found, range(1, 4000))
    damaged = files(tmp_path, ".log")[0]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    with caplog.at_level(logging.ERROR):
        left = generations(found)
    assert 3000 < len(left) < 3999
    assert left[0] == 1
    assert damaged.name in caplog.text
    found.close()


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    disk = FaultyDisk()
    found = opened(tmp_path, disk=disk)
    found.append([entry(1)])
    disk.faults = [Fault("write", errno.ENOSPC, room=20)]
    with pytest.raises(OSError, match="space"):
        found.append([entry(2)])
    disk.faults.append(Fault("truncate", errno.EIO, times=1))
    with pytest.raises(OSError, match="space"):
        found.append([entry(3)])
    disk.faults = []
    found.append([entry(4)])
    assert generations(found) == [1, 4]
    found.close()
    again = opened(tmp_path)
    assert generations(again) == [1, 4]
    again.close()


@pytest.mark.parametrize("step", ["open", "write", "sync", "rename", "sync_folder"])
def test_a_segment_that_cannot_be_rewritten_is_kept_as_it_is(tmp_path: Path, step: str) -> None:
    disk = FaultyDisk()
    found = opened(tmp_path, limit=16 * segments.SMALLEST_SEGMENT, disk=disk)
    number = 0
    while len(found.all()) == 1:
        number += 1
        if found.all()[0].size > segments.SMALLEST_SEGMENT - 300:
            disk.faults = [Fault(step, skip=1 if step in ("open", "write") else 0)]  # type: ignore[arg-type]
        try:
            found.append([entry(number, note=os.urandom(60).hex())])
            found.keep_limits(NOW)
        except OSError:
            disk.faults = []
            found.append([entry(number)])
    disk.faults = []
    found.append([entry(number + 1)])
    assert sorted(set(generations(found))) == list(range(1, number + 2))
    found.close()
    assert files(tmp_path, ".new") == []
    again = opened(tmp_path)
    assert sorted(set(generations(again))) == list(range(1, number + 2))
    again.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_power_cut_takes_what_was_not_synced_and_no_more(tmp_path: Path, seed: int) -> None:
    """Also in the middle of a segment's being rewritten."""
    folder, image, chance = tmp_path / "history", tmp_path / "image", random.Random(seed)
    folder.mkdir()
    crashing = CrashingDisk(LossyDisk(folder, image), 60 + chance.randrange(400))
    written = synced = 0
    try:
        found = opened(folder, limit=16 * segments.SMALLEST_SEGMENT, disk=crashing)
        while True:
            found.append([entry(written + 1, note=os.urandom(60).hex())])
            written += 1
            if chance.random() < 0.1:
                found.sync()
                synced = written
            found.keep_limits(NOW)
    except Crash:
        pass
    crashing.release()
    lose(image, chance, torn=True)
    again = opened(folder, limit=16 * segments.SMALLEST_SEGMENT)
    left = generations(again)
    assert left == list(range(1, len(left) + 1))
    assert synced <= len(left) <= written + 1
    again.append([entry(len(left) + 1)])
    assert generations(again) == list(range(1, len(left) + 2))
    again.close()
