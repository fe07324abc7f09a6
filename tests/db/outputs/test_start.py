"""A start finds the rows where they are: in the redo log, in a file that was put there, or in one that is newer."""

from __future__ import annotations

import gzip
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.db.outputs.conf import Block
from services.db.outputs.start import Begun
from services.db.outputs.startup import UnreadableDatabase, manifest
from services.db.recovery import RESERVE
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import RedoLogError
from shared.contracts.db import Create, SnapshotRow
from shared.database_dump.schema import TABLES, Table
from shared.database_dump.writer import moment, pieces
from shared.store import Store
from tests.db import rows
from tests.db.outputs.primary import BOOT, Primary, begin, names
from tests.db.redo.backends import Backend, Open, open_file
from tests.shared.database_dump.test_format import MANIFEST, NETWORK
from tests.shared.database_dump.test_round_trip import NASTY, legal

STATE = "state.db"


def foreign(*labels: str, generation: int = 5000) -> bytes:
    """A database that somebody else has written."""
    store = Store()
    found = [
        SnapshotRow(cls="network", ref=f"OpaqueRef:{label}", created=1, modified=2, fields=fields(label))
        for label in labels
    ]
    store.load(found, generation, term=0)
    return b"".join(pieces(moment(store)))


def fields(label: str) -> dict[str, str]:
    return {"uuid": f"uuid of {label}", "name_label": label}


def start(folder: Path, blocks: Sequence[Block] = (), boot: str = BOOT, opened: Open = open_file) -> Begun:
    redo_log, begun = begin(folder, list(blocks) or [Block(folder / STATE)], boot, opened)
    redo_log.close()
    return begun


async def lived(folder: Path, *labels: str, flush: bool = False) -> Primary:
    """A process that has written rows, and perhaps its file, and is gone."""
    primary = Primary(folder)
    for label in labels:
        await primary.write(rows.network(label))
    if flush:
        await primary.flusher.close()
    await primary.stop()
    return primary


# ---- nothing else there


def test_an_empty_folder_is_an_empty_database(tmp_path: Path) -> None:
    begun = start(tmp_path)
    assert (begun.store.count(), begun.source, begun.store.term) == (0, None, 0)


def test_a_database_of_the_original_is_the_pools_when_it_lies_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(foreign("theirs"))
    begun = start(tmp_path)
    assert names(begun.store) == {"theirs"}
    assert begun.store.generation == 5000 + 2 * RESERVE
    row = begun.store.find("network", "OpaqueRef:theirs")
    assert row is not None
    assert row.created == row.modified == begun.store.generation, "older event tokens get every row"


@pytest.mark.parametrize("boot", [BOOT, "another"])
def test_its_rows_are_in_the_redo_log_before_anybody_is_served(tmp_path: Path, backend: Backend, boot: str) -> None:
    (tmp_path / STATE).write_bytes(foreign("theirs"))
    before = start(tmp_path, opened=backend.open)
    (tmp_path / STATE).unlink()
    after = start(tmp_path, opened=backend.open, boot=boot)
    assert (names(after.store), after.source) == ({"theirs"}, None)
    assert after.store.generation >= before.store.generation
    assert after.store.term == before.store.term


async def test_what_is_written_then_stays_though_the_file_is_still_there(tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(foreign("theirs"))
    await lived(tmp_path, "ours")
    assert names(start(tmp_path).store) == {"theirs", "ours"}


def test_a_start_that_dies_before_the_log_has_the_rows_begins_with_the_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / STATE).write_bytes(foreign("theirs"))
    with monkeypatch.context() as patch:

        def died(*_: object) -> None:
            raise RedoLogError("died")

        patch.setattr("services.db.redo.file.FileCheckpoint.finish", died)
        with pytest.raises(RedoLogError):
            start(tmp_path)
    assert names(start(tmp_path).store) == {"theirs"}


def test_a_start_that_dies_before_the_log_is_begun_has_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / STATE).write_bytes(foreign("theirs"))
    with monkeypatch.context() as patch:

        def died(*_: object) -> None:
            raise RedoLogError("died")

        patch.setattr(FileRedoLog, "begin", died)
        with pytest.raises(RedoLogError):
            start(tmp_path)
    (tmp_path / STATE).unlink()
    assert names(start(tmp_path).store) == {"theirs"}


def test_a_compressed_file_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(gzip.compress(foreign("packed")))
    assert names(start(tmp_path).store) == {"packed"}


# ---- more than one


@pytest.mark.parametrize("staged", ["ha_metadata.db", "gen_metadata.db"])
def test_a_redo_log_that_was_brought_here_counts_when_it_is_newer(tmp_path: Path, staged: str) -> None:
    (tmp_path / STATE).write_bytes(foreign("flushed", generation=10))
    (tmp_path / staged).write_bytes(foreign("staged", generation=11))
    assert names(start(tmp_path).store) == {"staged"}


def test_the_files_own_word_counts_and_not_its_sidecars(tmp_path: Path) -> None:
    """The process died between the two, or somebody has copied an older file."""
    blocks = [Block(tmp_path / "a.db"), Block(tmp_path / "b.db")]
    blocks[0].path.write_bytes(foreign("newer", generation=11))
    (tmp_path / "a.db.generation").write_text("3")
    blocks[1].path.write_bytes(foreign("older", generation=10))
    (tmp_path / "b.db.generation").write_text("99")
    assert names(start(tmp_path, blocks).store) == {"newer"}


async def test_the_redo_log_has_more_than_the_file_that_it_was_flushed_to(tmp_path: Path) -> None:
    await lived(tmp_path, "flushed", flush=True)
    await lived(tmp_path, "logged")
    begun = start(tmp_path)
    assert (names(begun.store), begun.source) == ({"flushed", "logged"}, None)


async def test_a_lost_redo_log_is_made_good_for_by_the_file(tmp_path: Path) -> None:
    gone = await lived(tmp_path, "flushed", flush=True)
    for file in (tmp_path / "redo").iterdir():
        file.unlink()
    begun = start(tmp_path)
    assert names(begun.store) == {"flushed"}
    assert begun.behind
    assert (begun.store.term, begun.store.generation) == (gone.store.term, gone.store.generation)
    [row] = begun.store.tables["network"].rows.values()
    assert row.modified == gone.store.generation + 2 * RESERVE, "older event tokens get every row"


async def test_a_newer_file_of_somebody_else_takes_the_place_of_the_log(tmp_path: Path) -> None:
    await lived(tmp_path, "ours")
    (tmp_path / STATE).write_bytes(foreign("theirs", generation=10**7))
    assert names(start(tmp_path).store) == {"theirs"}
    (tmp_path / STATE).write_bytes(foreign("older", generation=10**7))
    assert names(start(tmp_path).store) == {"theirs"}


async def test_volatile_commits_that_a_power_cut_took_do_not_make_the_file_newer(tmp_path: Path) -> None:
    """The file has them as well. Persistent changes are in both."""
    primary = await lived(tmp_path, "ours", flush=True)
    flushed = manifest(primary.path).generation
    after = start(tmp_path, boot="another")
    assert after.source is None
    assert after.store.generation >= flushed


async def test_messages_stay(tmp_path: Path) -> None:
    """No file has them."""
    message = Create(
        cls="message",
        ref="OpaqueRef:m",
        fields={
            "name": "ALARM",
            "priority": 3,
            "cls": "Host",
            "obj_uuid": "h",
            "timestamp": "20260101T00:00:00Z",
            "body": "",
        },
    )
    primary = Primary(tmp_path)
    await primary.write(message, rows.network("ours"))
    await primary.stop()
    (tmp_path / "restore_db.db").write_bytes(foreign("restored"))
    begun = start(tmp_path)
    assert (set(begun.store.rows("message")), names(begun.store)) == ({"OpaqueRef:m"}, {"restored"})


# ---- restoring


async def test_a_restore_beats_all_and_happens_once(tmp_path: Path) -> None:
    await lived(tmp_path, "ours", flush=True)
    restore = tmp_path / "restore_db.db"
    restore.write_bytes(foreign("restored", generation=1))
    (tmp_path / "restore_db.db.generation").write_text("1")
    before = manifest(tmp_path / STATE).generation
    begun = start(tmp_path)
    assert names(begun.store) == {"restored"}
    assert begun.store.generation > before, "generations never go back"
    assert not {"restore_db.db", "restore_db.db.generation"} & set(os.listdir(tmp_path))
    assert names(start(tmp_path).store) == {"restored"}


async def test_a_restore_that_cannot_be_read_is_passed_over_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await lived(tmp_path, "ours")
    (tmp_path / "restore_db.db").write_bytes(foreign("restored")[:-300])
    with caplog.at_level(logging.ERROR):
        assert names(start(tmp_path).store) == {"ours"}
    assert "restore_db.db is no database that can be read" in caplog.text
    assert "the redo log is used" in caplog.text
    assert (tmp_path / "restore_db.db").exists()


# ---- damage


def damaged(data: bytes) -> bytes:
    return data.replace(b'MTU="1500"', b'MTU="many"')


def test_a_damaged_file_is_passed_over_when_there_is_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocks = [Block(tmp_path / "a.db"), Block(tmp_path / "b.db")]
    blocks[0].path.write_bytes(damaged(foreign("newer", generation=11)))
    blocks[1].path.write_bytes(foreign("older", generation=10))
    with caplog.at_level(logging.ERROR):
        assert names(start(tmp_path, blocks).store) == {"older"}
    assert f"{blocks[1].path} is tried" in caplog.text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (damaged(foreign("theirs")), "line 2, column [0-9]+ .in table network.: row OpaqueRef:theirs, MTU"),
        (foreign("theirs")[:-20], "no element found|unclosed token"),
        (b"", "no element found"),
        (b"\x00" * 100, "line 1"),
        (gzip.compress(foreign("theirs"))[:-30], "Compressed file ended|end-of-stream"),
        (gzip.compress(foreign("theirs"))[:50] + b"\xff" * 500, "invalid|Error"),
    ],
    ids=["value", "cut", "empty", "zeros", "cut gzip", "broken gzip"],
)
def test_the_only_file_being_damaged_stops_the_start(tmp_path: Path, data: bytes, why: str) -> None:
    """A pool that began empty would hide that there was another one."""
    (tmp_path / STATE).write_bytes(data)
    with pytest.raises(UnreadableDatabase, match=why) as error:
        start(tmp_path)
    assert str(tmp_path / STATE) in str(error.value)
    assert manifest_unchanged(tmp_path, data)


def manifest_unchanged(folder: Path, data: bytes) -> bool:
    return (folder / STATE).read_bytes() == data


async def test_a_damaged_file_beside_the_redo_log_is_nobodys_trouble(tmp_path: Path) -> None:
    await lived(tmp_path, "ours")
    (tmp_path / STATE).write_bytes(b"<database>")
    assert names(start(tmp_path).store) == {"ours"}


# ---- what others have written


def every_class() -> list[Table]:
    return [table for table in TABLES.values() if table.persistent]


def test_every_class_with_hostile_texts_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store()
    found = [
        SnapshotRow(
            cls=table.name,
            ref=f"OpaqueRef:{table.name}",
            created=1,
            modified=2,
            fields={
                "uuid": table.name,
                **{
                    name: NASTY[number % len(NASTY)]
                    for number, (name, field) in enumerate(table.cls.fields.items())
                    if str(field.type) == "string" and name != "uuid"
                },
            }
            if "uuid" in table.cls.fields
            else {},
        )
        for table in every_class()
    ]
    store.load(found, 700, term=0)
    (tmp_path / STATE).write_bytes(b"".join(pieces(moment(store))))
    begun = start(tmp_path)
    for table in every_class():
        ref = f"OpaqueRef:{table.name}"
        now, then = begun.store.rows(table.name)[ref], store.rows(table.name)[ref]
        for column in table.columns.values():
            if column.read and column.field is not None:
                assert now[column.field.name] == legal(then[column.field.name]), (table.name, column.name)


OLD = f"""<?xml version="1.0" encoding="UTF-8"?>
<database>{MANIFEST}<table name="Antique"><row ref="OpaqueRef:a" colour="red"/></table>
<table name="network"><row ref="OpaqueRef:n" uuid="n" {NETWORK} name__label="a%_b" unheard="of"/></table>
<table name="VMPP"><row ref="OpaqueRef:p" uuid="p" name__label="policy"/></table></database>"""


def test_an_old_database_lacks_columns_and_has_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / STATE).write_text(OLD)
    with caplog.at_level(logging.WARNING):
        begun = start(tmp_path)
    assert names(begun.store) == {"a  b"}
    assert begun.store.get("network", "OpaqueRef:n", "MTU") == 1500
    assert not begun.store.rows("VMPP"), "upgraded"
    assert re.search("left out: Antique, network.unheard", caplog.text)
