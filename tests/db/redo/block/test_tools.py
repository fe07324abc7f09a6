"""`python -m services.db.redo.block`."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.db.redo.block.__main__ import main
from services.db.redo.interface import RedoLogError
from shared.database_dump.reader import read
from shared.redo_blocks.layout import UPSTREAM
from tests.db.redo.block.harness import Primary, Rows, network, recovered_rows, write


class Written:
    """A log of the original's size: a database, and two batches after it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        primary = Primary(path, geometry=UPSTREAM)
        primary.commit(network("n"))
        primary.checkpoint()
        primary.commit(write("n", name_label="first"))
        self.first: Rows = primary.rows
        primary.commit(write("n", name_label="second"), network("m"))
        self.second: Rows = primary.rows
        self.generation = primary.store.generation
        primary.log.close()


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """With holes: quicker than what the log would make."""
    with (tmp_path / "log").open("wb") as file:
        file.truncate(UPSTREAM.size)
    return tmp_path / "log"


@pytest.fixture
def written(blank: Path) -> Written:
    return Written(blank)


def damage(path: Path, text: bytes) -> None:
    """Changes the last place where the text is, of those in the first 100 KiB of the second half."""
    start = 18 + 62914560
    with path.open("r+b") as file:
        file.seek(start)
        file.seek(start + file.read(100_000).rindex(text))
        file.write(b"#")


def test_dump_prints_every_delta_with_its_generation(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", str(written.path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("valid half: 2\n")
    assert "WriteFiel network n name__label = 'first'" in out
    assert f"delta: generation {written.generation}, CreateRow network m" in out
    assert "database: generation 1, " in out


def test_dump_reads_while_the_database_runs(blank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    primary = Primary(blank, geometry=UPSTREAM)
    primary.commit(network("n"))
    assert main(["dump", str(blank)]) == 0
    assert "CreateRow network n" in capsys.readouterr().out


def test_export_writes_the_database_with_all_deltas(written: Written, tmp_path: Path) -> None:
    assert main(["export", str(written.path), str(tmp_path / "state.db")]) == 0
    dump = read(tmp_path / "state.db")
    assert dump.generation == written.generation
    assert {row.ref: row.fields["name_label"] for row in dump.rows} == {"n": "second", "m": ""}
    assert main(["export", "--half", "1", str(written.path), str(tmp_path / "older.db")]) == 0
    assert {row.ref for row in read(tmp_path / "older.db").rows} == {"n"}


def test_export_does_not_overwrite(written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state.db").write_text("mine")
    assert main(["export", str(written.path), str(tmp_path / "state.db")]) == 1
    assert "state.db: File exists" in capsys.readouterr().err
    assert (tmp_path / "state.db").read_text() == "mine"


def test_empty_makes_both_halves_invalid(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["empty", str(written.path)]) == 0
    assert recovered_rows(written.path, UPSTREAM) == {}
    assert main(["dump", str(written.path)]) == 0
    assert capsys.readouterr().out.startswith("valid half: none\n")


def test_what_is_damaged_is_cut_where_the_damage_begins(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(written.path, b"first")
    with pytest.raises(RedoLogError, match="gives up what follows"):
        recovered_rows(written.path, UPSTREAM)
    assert main(["export", str(written.path), str(tmp_path / "state.db")]) == 0
    assert "damaged at byte" in capsys.readouterr().err
    assert main(["cut", str(written.path)]) == 0
    assert "with generation 1\n" in capsys.readouterr().out
    assert {ref for _, ref in recovered_rows(written.path, UPSTREAM)} == {"n"}
    assert main(["cut", str(written.path)]) == 0
    assert "nothing to cut" in capsys.readouterr().out


def test_a_running_database_is_not_changed(
    blank: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.db.redo.block.__main__.LOCK_WAIT", 0.0)
    primary = Primary(blank, geometry=UPSTREAM)
    before = primary.commit(network("n"))
    for command in ("empty", "cut"):
        assert main([command, str(blank)]) == 1
        assert "another process uses it" in capsys.readouterr().err
    primary.log.close()
    assert recovered_rows(blank, UPSTREAM) == before


def test_what_is_no_redo_log_is_said_so(blank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", str(tmp_path / "absent")]) == 1
    assert "absent: No such file" in capsys.readouterr().err
    for command in ("dump", "empty", "cut"):
        assert main([command, str(blank)]) == 1
        assert "holds no redo log" in capsys.readouterr().err
