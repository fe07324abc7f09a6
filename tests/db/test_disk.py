"""How the room of large files that nobody needs is given back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.db import disk as module
from services.db.disk import PIECE, Disk


class Watched(Disk):
    def __init__(self) -> None:
        self.lengths: list[int] = []

    def truncate(self, descriptor: int, length: int) -> None:
        super().truncate(descriptor, length)
        self.lengths.append(length)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    return Watched()


def large(path: Path) -> Path:
    path.write_bytes(bytes(3 * PIECE + 1))
    return path


def test_a_file_that_is_removed_is_given_back_piece_by_piece(tmp_path: Path, disk: Watched) -> None:
    disk.remove([large(tmp_path / "old"), tmp_path / "never"])
    assert disk.lengths == [2 * PIECE + 1, PIECE + 1, 1]
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_replaced_is_given_back_piece_by_piece(tmp_path: Path, disk: Watched) -> None:
    for name in ("name", "name.new"):
        large(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + name.encode())
    disk.replace(tmp_path / "name.new", tmp_path / "name")
    assert len(disk.lengths) == 3
    assert os.listdir(tmp_path) == ["name"]
    assert (tmp_path / "name").read_bytes().endswith(b"name.new")


def test_who_has_another_name_for_it_or_reads_it_keeps_all_of_it(tmp_path: Path, disk: Watched) -> None:
    linked = large(tmp_path / "linked")
    os.link(linked, tmp_path / "kept")
    disk.remove([linked])
    assert (tmp_path / "kept").stat().st_size == 3 * PIECE + 1
    with large(tmp_path / "read").open("rb") as reader:
        disk.remove([tmp_path / "read"])
        assert len(reader.read()) == 3 * PIECE + 1
    assert disk.lengths == []


def test_a_name_that_cannot_be_given_leaves_the_former_file_whole(tmp_path: Path, disk: Watched) -> None:
    former = large(tmp_path / "name")
    with pytest.raises(FileNotFoundError):
        disk.replace(tmp_path / "missing", former)
    assert former.stat().st_size == 3 * PIECE + 1
    assert disk.lengths == []
