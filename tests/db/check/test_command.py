"""`python -m services.db.check` on folders and dumps, sound and damaged."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from services.db.check.command import CLEAN, DAMAGED, UNREADABLE, main
from services.db.lock import StateInUse, StateLock
from services.db.recovery import boot_id, restore
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import CheckpointHeader, LogRecord, entry
from shared.contracts.db import RowCreated, RowModified, SnapshotRow
from shared.database_dump.writer import moment, pieces
from shared.store import Store
from tests.db import soundness
from tests.db.check import sample
from tests.db.check.sample import HOST, NETWORK, POOL, VBD, VM, Kept

Spoil = Callable[[Kept], None]


def checkpoint(log: FileRedoLog, rows: Iterable[SnapshotRow], count: int, generation: int) -> None:
    made = log.checkpoint()
    made.hold(CheckpointHeader(generation=generation, term=3, rows=count, boot=boot_id(), requests={"r": 1}))
    made.write(rows)
    made.finish()


def state(path: Path, kept: Kept, *records: LogRecord, synced: bool = True) -> Path:
    """A state folder with these rows in its checkpoint and these commits after it."""
    (path / "redo").mkdir(parents=True)
    log = FileRedoLog(path / "redo", boot_id(), synced=synced)
    checkpoint(log, kept.rows, len(kept.rows), kept.generation)
    log.begin(kept.generation, 3)
    if records:
        log.append([entry(record, record.generation - 1) for record in records], sync=True)
    log.close()
    return path


def dump(path: Path, store: Store, change: Callable[[str], str] = str) -> Path:
    path.write_text(change(b"".join(pieces(moment(store))).decode()))
    return path


def run(*arguments: str | Path) -> tuple[int, str]:
    output = io.StringIO()
    status = main([str(argument) for argument in arguments], output)
    return status, output.getvalue()


def report(*arguments: str | Path) -> tuple[int, Any]:
    status, text = run("--json", *arguments)
    return status, json.loads(text)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def loaded(folder: Path) -> Store:
    """As the next start has it."""
    store = restore(FileRedoLog(folder / "redo", boot_id()).recover(), boot_id())
    soundness.assert_sound(store)
    return store


def test_a_sound_folder_is_clean_and_stays_as_it_is(tmp_path: Path) -> None:
    folder = state(tmp_path, Kept(), LogRecord(generation=2, term=3, changes=[]))
    before = content(folder / "redo")
    status, text = run(folder)
    assert (status, text.splitlines()) == (
        CLEAN,
        ["9 rows at generation 2: 0 findings of damage, 0 with one right answer; 0 notes; 0 repaired"],
    )
    assert content(folder / "redo") == before


def test_commits_after_the_checkpoint_count(tmp_path: Path) -> None:
    spoiling = RowModified(cls="VBD", ref=VBD, fields={"VDI": NETWORK})
    folder = state(tmp_path, Kept(), LogRecord(generation=2, term=3, changes=[spoiling]))
    status, found = report(folder)
    assert status == DAMAGED
    assert [(finding["kind"], finding["ref"]) for finding in found["findings"]] == [("wrong_class", VBD)]


def test_a_torn_end_is_told_of_and_left_where_it_is(tmp_path: Path) -> None:
    folder = state(tmp_path, Kept())
    segment = max((folder / "redo").glob("redo-*.log"))
    segment.write_bytes(segment.read_bytes() + b"torn")
    before = content(folder / "redo")
    status, text = run(folder)
    assert status == CLEAN
    assert "4 bytes at the end of the redo log" in text
    assert content(folder / "redo") == before


def test_notes_are_counted_or_shown(tmp_path: Path) -> None:
    kept = Kept()
    kept.set(VM, affinity="OpaqueRef:gone")
    folder = state(tmp_path, kept)
    status, text = run(folder)
    assert status == CLEAN
    assert "note      dangling: VM.affinity, 1 times" in text
    assert "OpaqueRef:gone" in run("--notes", folder)[1]


def test_repair_writes_what_the_next_start_takes_and_keeps_the_old_log(tmp_path: Path) -> None:
    kept = Kept()
    kept.set(NETWORK, MTU="9000", nothing=1)
    kept.set(POOL, master="OpaqueRef:gone")
    kept.lose(VM, "HVM_shadow_multiplier")
    before = content(state(tmp_path, kept) / "redo")
    assert run(tmp_path)[0] == DAMAGED
    status, found = report("--repair", tmp_path)
    assert status == CLEAN
    kinds = ["missing_field", "pool", "unknown_field", "wrong_type"]
    assert sorted({finding["kind"] for finding in found["repaired"]}) == kinds
    assert content(Path(found["kept"])) == before
    store = loaded(tmp_path)
    assert (store.get("network", NETWORK, "MTU"), store.get("pool", POOL, "master")) == (9000, HOST)
    assert (store.generation, store.term) == (kept.generation + 1, 4)
    assert store.tables["network"].rows[NETWORK].modified == store.generation
    assert store.tables["VM"].rows[VM].modified == kept.generation
    assert run(tmp_path)[0] == CLEAN


def test_repair_of_a_sound_folder_writes_nothing(tmp_path: Path) -> None:
    folder = state(tmp_path, Kept())
    before = content(folder / "redo")
    assert run("--repair", folder)[0] == CLEAN
    assert content(folder / "redo") == before
    assert not list(folder.glob("redo-before-repair-*"))


def test_what_nobody_can_decide_is_left_and_said(tmp_path: Path) -> None:
    """Two rows of one reference: loading would choose one of them."""
    kept = Kept()
    kept.again(NETWORK, fields={**kept.row(NETWORK).fields, "name_label": "other"})
    kept.set(HOST, API_version_major="2")
    before = content(state(tmp_path, kept) / "redo")
    status, found = report("--repair", tmp_path)
    assert status == DAMAGED
    assert "somebody has to decide" in found["failed"]
    assert content(tmp_path / "redo") == before


def test_a_journal_beside_another_log_is_looked_at_and_not_repaired(tmp_path: Path) -> None:
    """After a restart of the machine the other log counts; what is written here must not take its place."""
    kept = Kept()
    kept.set(NETWORK, MTU="9000")
    before = content(state(tmp_path, kept, synced=False) / "redo")
    status, found = report("--repair", tmp_path)
    assert (status, len(found["findings"])) == (DAMAGED, 1)
    assert "local journal" in found["failed"]
    assert content(tmp_path / "redo") == before


def test_rows_that_cannot_be_loaded_are_told_of_and_repaired_where_possible(tmp_path: Path) -> None:
    kept = Kept()
    kept.set(VM, resident_on=["x"])
    folder = state(tmp_path, kept)
    status, found = report(folder)
    assert status == DAMAGED
    assert [finding["kind"] for finding in found["findings"]] == ["wrong_type", "unreadable"]
    assert "cannot be loaded" in report("--repair", folder)[1]["failed"]


def test_a_folder_that_a_process_holds_is_refused(tmp_path: Path) -> None:
    folder = state(tmp_path, Kept())
    source = "import sys; from pathlib import Path; from services.db.lock import StateLock\n"
    source += "StateLock(Path(sys.argv[1])).take(); print('held', flush=True); sys.stdin.read()\n"
    command = [sys.executable, "-c", source, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert main([str(folder)]) == UNREADABLE
        with pytest.raises(StateInUse, match=str(holder.pid)):
            StateLock(folder).take()
        assert holder.stdin is not None
        holder.stdin.close()
    assert main([str(folder)], io.StringIO()) == CLEAN


def test_a_forked_child_does_not_hold_its_parents_lock(tmp_path: Path) -> None:
    """Or the next process could not start while a killed one's checkpoint is still being written."""
    lock = StateLock(tmp_path)
    lock.take()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            StateLock(tmp_path).take()
            os.write(writing, b"took")
        except StateInUse:
            os.write(writing, b"none")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 4) == b"none"
    os.close(reading)
    os.close(writing)
    lock.release()


@pytest.mark.parametrize("name", ["", "nothing", "file"])
def test_what_is_no_database_is_unreadable(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no database")
    assert main([str(tmp_path / name)]) == UNREADABLE
    assert str(tmp_path / name) in capsys.readouterr().err


# ---- dumps


def test_a_dump_is_checked_too(tmp_path: Path) -> None:
    assert run(dump(tmp_path / "sound.xml", sample.store()))[0] == CLEAN
    spoiled = dump(
        tmp_path / "spoiled.xml",
        sample.store(),
        lambda text: text.replace('MTU="1500"', 'MTU="much"').replace('uuid="u-vdi"', 'uuid="u-vbd"'),
    )
    status, found = report(spoiled)
    assert status == DAMAGED
    assert sorted(finding["kind"] for finding in found["findings"]) == ["shared_uuid", "wrong_type"]


def test_rows_above_the_manifest_are_damage_and_repaired_into_another_file(tmp_path: Path) -> None:
    path = dump(tmp_path / "dump.xml", sample.store(), lambda text: text.replace('__mtime="1"', '__mtime="7"'))
    before = path.read_bytes()
    assert run("--repair", path)[0] == DAMAGED
    status, found = report("--repair", "-o", tmp_path / "new.xml", path)
    assert (status, {finding["kind"] for finding in found["repaired"]}) == (CLEAN, {"wrong_generation"})
    assert path.read_bytes() == before
    assert run(tmp_path / "new.xml")[0] == CLEAN
    assert "exists" in report("--repair", "-o", tmp_path / "new.xml", path)[1]["failed"]


def test_rows_that_commits_have_made_since_the_checkpoint_are_looked_at(tmp_path: Path) -> None:
    made = RowCreated(cls="network", ref="OpaqueRef:new", fields={"uuid": "u-new", "name_label": "new"})
    folder = state(tmp_path, Kept(), LogRecord(generation=2, term=3, changes=[made]))
    status, found = report(folder)
    assert (status, found["rows"], found["generation"], found["term"]) == (CLEAN, 10, 2, 3)
