"""Power cuts at every moment, with every set of sectors that may have been written: the original's reader and ours find
all that was acknowledged, and of a batch in flight all or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.db.recovery import restore
from services.db.redo.block.reading import ELSEWHERE, read, recovered
from shared.redo_blocks.layout import Half, valid_half
from tests.db.redo.block import original
from tests.db.redo.block.harness import SMALL, Primary, Rows, drop, network, rows_of, write
from tests.db.redo.block.sectors import SectorDisk

SUBSETS = 256
"""States looked at for one moment: all of a batch's, some of a checkpoint's."""


@dataclass
class Watch:
    """Looks at every state that a power cut may leave, and asks for one of `allowed`: rows and generation."""

    disk: SectorDisk
    allowed: list[tuple[Rows, int]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    states: int = 0
    subsets: int = SUBSETS

    def __call__(self) -> None:
        for image in self.disk.states(self.subsets, seed=self.states):
            self.states += 1
            theirs = original.read(image, SMALL.half)
            assert theirs is not None
            assert not theirs.error
            index = [generation for _, generation in self.allowed].index(theirs.generation)
            assert theirs.rows == self.allowed[index][0]
            assert ours(image) == self.allowed[index]
            self.seen.append(theirs.generation)


def ours(image: bytes) -> tuple[Rows, int]:
    half = valid_half(image)
    assert half in (Half.FIRST, Half.SECOND)
    reading = read(image[SMALL.start(half) : SMALL.end(half)])
    assert (reading.damage, reading.lost) == (None, None)
    found = recovered(reading)
    return rows_of(restore(found, ELSEWHERE)), found.generation


def end_of(disk: SectorDisk) -> int:
    found = original.read(disk.stable, SMALL.half)
    assert found is not None
    return found.end


@pytest.fixture
def disk(tmp_path: Path) -> SectorDisk:
    return SectorDisk(tmp_path / "log")


@pytest.fixture
def primary(disk: SectorDisk) -> Primary:
    return Primary(disk.path, disk)


def now(primary: Primary) -> tuple[Rows, int]:
    return primary.rows, primary.store.generation


@pytest.mark.parametrize("padding", [0, 16, 17, 100, 300, 460, 500])
def test_a_batch_is_there_as_a_whole_or_not_at_all(primary: Primary, disk: SectorDisk, padding: int) -> None:
    """`padding` moves the batch against the sectors, so that its length is cut by their edges too."""
    before = primary.commit(network("n"), write("n", name_label="x" * padding)), primary.store.generation
    entries = [
        primary.entry(write("n", name_label="a", name_description="b"), request="one"),
        primary.entry(network("m", other_config={"k": "v"})),
        primary.entry(drop("n"), write("m", tags=["t"])),
    ]
    watch = disk.on_moment = Watch(disk, [before, now(primary)], subsets=2496)
    syncs = disk.syncs
    primary.log.append(entries, True)
    assert set(watch.seen) == {before[1], primary.store.generation}
    assert watch.seen[-1] == primary.store.generation
    assert disk.syncs - syncs == 2
    assert watch.states >= 16


def test_a_batch_whose_length_lies_across_two_sectors_is_not_seen_by_halves(primary: Primary, disk: SectorDisk) -> None:
    primary.commit(network("n"))
    end, length = end_of(disk), 0
    while end % 512 != 504:
        padding = (504 - end - length) % 512
        primary.commit(write("n", name_label=f"{end}".ljust(padding, "y")))
        end, length = end_of(disk), end_of(disk) - end - padding
    before = now(primary)
    entries = [primary.entry(write("n", name_label="new"))]
    watch = disk.on_moment = Watch(disk, [before, now(primary)])
    primary.log.append(entries, True)
    assert set(watch.seen) == {before[1], primary.store.generation}


def test_a_checkpoint_loses_nothing_whenever_the_power_is_cut(primary: Primary, disk: SectorDisk) -> None:
    primary.commit(network("n"), write("n", name_label="one"))
    for round in range(2):
        watch = disk.on_moment = Watch(disk, [now(primary)], subsets=24)
        checkpoint = primary.checkpoint_of(primary.header())
        rows = list(primary.store.snapshot())
        checkpoint.begin()
        checkpoint.write(rows)
        disk.on_moment = None
        primary.commit(write("n", name_label=f"meanwhile {round}"), network(f"m{round}"))
        watch = disk.on_moment = Watch(disk, [now(primary)], subsets=24)
        checkpoint.finish()
        assert watch.states > 5
        disk.on_moment = None
        primary.commit(write("n", name_label=f"afterwards {round}"))


def test_a_checkpoint_that_is_abandoned_changes_nothing(primary: Primary, disk: SectorDisk) -> None:
    primary.commit(network("n"))
    watch = disk.on_moment = Watch(disk, [now(primary)], subsets=24)
    checkpoint = primary.checkpoint_of(primary.header())
    checkpoint.begin()
    checkpoint.write(primary.store.snapshot())
    checkpoint.abandon()
    assert watch.states > 20


def test_the_first_database_is_there_or_there_is_none(disk: SectorDisk) -> None:
    found: list[int | None] = []

    def look() -> None:
        for image in disk.states(40, seed=1):
            theirs = original.read(image, SMALL.half)
            found.append(None if theirs is None else theirs.generation)

    disk.on_moment = look
    primary = Primary(disk.path, disk)
    assert None in found
    assert found[-1] == 0
    assert primary.rows == {}


def test_a_new_start_and_a_new_term_change_no_row(primary: Primary, disk: SectorDisk) -> None:
    primary.commit(network("n"), write("n", name_label="one"))
    expected = now(primary)
    primary.log.close()
    disk.on_moment = Watch(disk, [expected])
    again = Primary(disk.path, disk)
    assert now(again) == expected
