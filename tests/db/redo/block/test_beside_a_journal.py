"""The local journal beside a device: what one of them has, and the other not."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.db.recovery import restore
from services.db.redo.block.log import BlockRedoLog
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import CheckpointHeader, LogFull, LogRecord, entry
from services.db.redo.layered import LayeredRedoLog
from shared.store import Store
from tests.db.redo.block.harness import SMALL, Rows, network, recovered_rows, rows_of, write

BOOT = "boot"


class Killed(BaseException):
    """Between the journal and the device."""


class Process:
    def __init__(self, folder: Path) -> None:
        self.device = BlockRedoLog(folder / "device", geometry=SMALL)
        self.log = LayeredRedoLog(FileRedoLog(folder / "journal", BOOT, synced=False), self.device)
        self.found = self.log.recover()
        self.store: Store = restore(self.found, BOOT)
        self.store.term += 1
        self.log.begin(self.store.generation, self.store.term)

    def commit(self, *changes: object, request: str = "") -> None:
        made = list(changes)
        generation = self.store.generation + self.log.generations(made)  # type: ignore[arg-type]
        record = LogRecord(generation=generation, term=self.store.term, changes=made, request=request)  # type: ignore[arg-type]
        self.log.append([entry(record, self.store.generation)], True)
        self.store.generation = generation


def on_device(folder: Path) -> Rows:
    return recovered_rows(folder / "device")


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a process that was killed with a commit that only the journal has."""
    process = Process(tmp_path)
    process.commit(network("n", name_description="x" * 3000))

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(BlockRedoLog, "append", killed)
        with pytest.raises(Killed):
            process.commit(network("m"), request="only in the journal")
    process.log.close()
    assert set(on_device(tmp_path)) == {("network", "n")}
    return tmp_path


def test_a_commit_that_only_the_journal_has_reaches_the_device_before_the_next_one(behind: Path) -> None:
    again = Process(behind)
    assert again.found.requests["only in the journal"]
    again.commit(write("m", name_label="depends on it"))
    again.log.close()
    rows = on_device(behind)
    assert rows["network", "m"]["name_label"] == "depends on it"
    assert rows == rows_of(restore(Process(behind).found, BOOT))


def test_where_it_has_no_room_a_checkpoint_takes_it_there(behind: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(BlockRedoLog, "_fits", lambda *_: False)
        for _ in range(2):
            again = Process(behind)
            assert not again.log.roomy
            with pytest.raises(LogFull):
                again.commit(write("m", name_label="depends on it"))
            again.log.close()
    assert set(on_device(behind)) == {("network", "n")}
    again = Process(behind)
    again.log.close()
    assert set(on_device(behind)) == {("network", "n"), ("network", "m")}


def test_a_checkpoint_brings_the_device_what_only_the_journal_has(
    behind: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(BlockRedoLog, "_fits", lambda *_: False)
        again = Process(behind)
    checkpoint = again.log.checkpoint()
    checkpoint.begin()
    store = again.store
    checkpoint.hold(CheckpointHeader(generation=store.generation, term=store.term, rows=store.count()))
    checkpoint.write(store.snapshot())
    checkpoint.finish()
    again.commit(write("m", name_label="depends on it"))
    again.log.close()
    assert on_device(behind)["network", "m"]["name_label"] == "depends on it"
