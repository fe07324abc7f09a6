"""A device that several hosts reach: the primary writes to it, whoever takes its place goes on from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.db.recovery import restore
from services.db.redo.block.log import BlockRedoLog
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import CheckpointHeader, Entry, LogFull, LogRecord, RedoLogError, entry
from services.db.redo.layered import LayeredRedoLog
from shared.contracts.db import Delta, RowChange
from shared.store import Store
from tests.db.redo.block.harness import SMALL, network, recovered_rows, rows_of, write


class Host:
    """A process of the database. `primary`: whether it was told to be."""

    def __init__(self, folder: Path, name: str, *, primary: bool) -> None:
        self.primary = primary
        self.behind: list[str] = []
        self.device = BlockRedoLog(
            folder / "device",
            geometry=SMALL,
            primary=lambda: self.primary,
            on_behind=self.behind.append,
        )
        journal = FileRedoLog(folder / name, f"boot of {name}")
        self.log = LayeredRedoLog(journal, self.device, lambda: self.device.idle)
        found = self.log.recover()
        self.store: Store = restore(found, journal.boot if primary else found.boot or journal.boot)
        self.log.begin(self.store.generation, self.store.term + primary)
        self.store.term += primary

    def apply(self, *changes: RowChange) -> Entry:
        store = self.store
        generation = store.generation + self.log.generations(changes)
        record = LogRecord(generation=generation, term=store.term, changes=list(changes))
        made = entry(record, store.generation)
        store.apply(Delta(term=store.term, generation=generation, previous=store.generation, changes=list(changes)))
        return made

    def commit(self, *changes: RowChange) -> Entry:
        made = self.apply(*changes)
        try:
            self.log.append([made], True)
        except LogFull:
            self.checkpoint()
            self.log.append([made], True)
        return made

    def follow(self, made: Entry) -> None:
        record = made.record
        self.store.apply(
            Delta(term=record.term, generation=record.generation, previous=made.previous, changes=record.changes)
        )
        self.log.append([made], True)

    def promote(self) -> None:
        self.primary = True
        self.log.begin(self.store.generation, self.store.term + 1)
        self.store.term += 1

    def checkpoint(self) -> None:
        made = self.log.checkpoint()
        made.begin()
        store = self.store
        made.hold(CheckpointHeader(generation=store.generation, term=store.term, rows=store.count()))
        made.write(store.snapshot())
        made.finish()


def on_device(folder: Path) -> object:
    return recovered_rows(folder / "device")


def test_a_standby_leaves_the_device_alone_and_keeps_what_it_follows(tmp_path: Path) -> None:
    primary = Host(tmp_path, "one", primary=True)
    primary.commit(network("n"))
    standby = Host(tmp_path, "two", primary=False)
    before = (tmp_path / "device").read_bytes()
    standby.follow(primary.apply(write("n", name_label="followed")))
    standby.checkpoint()
    assert standby.log.roomy
    assert (tmp_path / "device").read_bytes() == before
    standby.log.close()
    again = Host(tmp_path, "two", primary=False)
    assert rows_of(again.store)["network", "n"]["name_label"] == "followed"


def test_a_standby_starts_where_the_device_is_not(tmp_path: Path) -> None:
    standby = Host(tmp_path, "two", primary=False)
    assert standby.store.count() == 0
    assert not (tmp_path / "device").exists()


def test_a_promoted_standby_that_has_seen_all_goes_on_with_all_its_rows(tmp_path: Path) -> None:
    primary = Host(tmp_path, "one", primary=True)
    primary.commit(network("n"))
    primary.log.close()
    standby = Host(tmp_path, "two", primary=False)
    standby.promote()
    standby.commit(write("n", name_label="of the new primary"))
    rows = rows_of(standby.store)
    standby.log.close()
    assert on_device(tmp_path) == rows
    assert standby.behind == []


def test_a_promoted_standby_that_lacks_something_starts_anew_and_has_it(tmp_path: Path) -> None:
    primary = Host(tmp_path, "one", primary=True)
    primary.commit(network("n"))
    standby = Host(tmp_path, "two", primary=False)
    primary.commit(write("n", name_label="not followed"))
    expected = rows_of(primary.store)
    primary.log.close()
    with pytest.raises(RedoLogError, match="start again"):
        standby.promote()
    assert len(standby.behind) == 1
    standby.log.close()
    again = Host(tmp_path, "two", primary=True)
    assert rows_of(again.store) == expected


def test_a_primary_that_stands_back_and_is_promoted_again_writes_all_its_rows_anew(tmp_path: Path) -> None:
    one = Host(tmp_path, "one", primary=True)
    one.commit(network("n"))
    one.primary = False
    one.log.begin(one.store.generation, one.store.term)
    two = Host(tmp_path, "two", primary=True)  # the device is free
    followed = two.commit(write("n", name_label="of two"))
    two.log.close()
    one.store.term = followed.record.term
    one.follow(followed)
    one.promote()
    one.commit(write("n", name_description="of one again"))
    rows = rows_of(one.store)
    one.log.close()
    assert on_device(tmp_path) == rows


def test_a_device_that_cannot_be_read_when_a_process_starts_is_read_before_it_is_written(tmp_path: Path) -> None:
    primary = Host(tmp_path, "one", primary=True)
    primary.commit(network("n"))
    expected = rows_of(primary.store)
    primary.log.close()
    (tmp_path / "device").rename(tmp_path / "away")
    standby = Host(tmp_path, "two", primary=False)
    assert standby.store.count() == 0
    (tmp_path / "away").rename(tmp_path / "device")
    with pytest.raises(RedoLogError, match="start again"):
        standby.promote()
    standby.log.close()
    assert on_device(tmp_path) == expected
