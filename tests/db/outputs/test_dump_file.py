"""One file, its sidecar and its origin: all of the new ones or all of the old, at every moment."""

from __future__ import annotations

import errno
import gzip
import stat
from pathlib import Path

import pytest

from services.db.disk import Disk
from services.db.outputs import dump_file
from services.db.outputs.dump_file import Origin
from services.db.outputs.startup import manifest
from shared.database_dump.writer import moment, pieces
from shared.store import Store

OLD, NEW = 77, 99


def rows(generation: int) -> Store:
    store = Store()
    store.load([], generation, term=1)
    return store


def prepare(path: Path, generation: int, disk: Disk | None = None, *, term: int = 1, compress: bool = False) -> None:
    dump_file.prepare(
        disk or Disk(),
        path,
        pieces(moment(rows(generation))),
        generation=generation,
        origin=Origin(pool="p", term=term, persistent=generation),
        compress=compress,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "state.db"
    prepare(file, OLD)
    dump_file.install(Disk(), file)
    return file


def beside(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


NAMES = {"state.db", "state.db.generation", "state.db.origin"}


def test_it_is_the_document_and_only_for_its_owner(path: Path) -> None:
    assert path.read_bytes() == b"".join(pieces(moment(rows(OLD))))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_sidecar_has_the_generation_in_decimal_and_nothing_else(path: Path) -> None:
    assert (path.parent / "state.db.generation").read_bytes() == b"77"


def test_it_can_be_compressed(path: Path) -> None:
    prepare(path, NEW, compress=True)
    dump_file.install(Disk(), path)
    assert gzip.decompress(path.read_bytes()) == b"".join(pieces(moment(rows(NEW))))
    assert manifest(path).generation == NEW
    origin = dump_file.origin_of(path)
    assert origin is not None
    assert origin.persistent == NEW


def test_nothing_counts_before_it_is_installed(path: Path) -> None:
    prepare(path, NEW)
    assert manifest(path).generation == OLD
    dump_file.discard(Disk(), path)
    assert beside(path) == NAMES


def test_an_own_file_is_known_wherever_it_is(path: Path) -> None:
    origin = dump_file.origin_of(path)
    assert origin is not None
    assert (origin.term, origin.persistent) == (1, OLD)


def test_a_file_that_somebody_has_put_there_is_not_our_own(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'value="77"', b'value="78"'))
    assert dump_file.origin_of(path) is None


@pytest.mark.parametrize("damaged", [b"", b"{}", b"\xff", b'[{"term":"x"}]'])
def test_an_origin_that_cannot_be_read_tells_nothing(path: Path, damaged: bytes) -> None:
    (path.parent / "state.db.origin").write_bytes(damaged)
    assert dump_file.origin_of(path) is None


class Interrupted(Disk):
    """The process dies before that renaming."""

    def __init__(self, renames: int) -> None:
        self._left = renames

    def rename(self, old: Path, new: Path) -> None:
        if not self._left:
            raise OSError(errno.EIO, "died")
        self._left -= 1
        super().rename(old, new)


@pytest.mark.parametrize(("renames", "generation"), [(0, OLD), (1, OLD), (2, NEW), (3, NEW)])
def test_whatever_a_crash_leaves_is_a_whole_file_that_is_known_as_our_own(
    path: Path, renames: int, generation: int
) -> None:
    """Between the file and its sidecar the manifest is right, and the sidecar is not."""
    prepare(path, NEW)
    try:
        dump_file.install(Interrupted(renames), path)
    except OSError:
        assert renames < 3
    assert manifest(path).generation == generation
    origin = dump_file.origin_of(path)
    assert origin is not None
    assert origin.persistent == generation
    sidecar = (path.parent / "state.db.generation").read_bytes()
    assert sidecar == (b"99" if renames == 3 else b"77")


class Full(Disk):
    """Takes so many bytes."""

    def __init__(self, room: int) -> None:
        self._room = room

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = super().write(descriptor, data[: self._room], offset)
        self._room -= count
        return count


@pytest.mark.parametrize("room", [0, 1, 100, 2000])
def test_a_full_disk_leaves_the_old_file(path: Path, room: int) -> None:
    with pytest.raises(OSError, match="No space left"):
        prepare(path, NEW, Full(room))
    dump_file.discard(Disk(), path)
    assert (manifest(path).generation, beside(path)) == (OLD, NAMES)


def test_what_a_writer_that_was_killed_has_left_is_in_nobodys_way(path: Path) -> None:
    (path.parent / "state.db.new").write_bytes(b"half of it")
    prepare(path, NEW)
    dump_file.install(Disk(), path)
    assert manifest(path).generation == NEW


def test_it_goes_with_all_that_is_beside_it(path: Path) -> None:
    dump_file.remove(Disk(), path)
    assert beside(path) == set()
