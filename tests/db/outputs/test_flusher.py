"""Files are written beside the transactions, by a child that may die, be late, or find no room."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.db.disk import Disk
from services.db.outputs.candidates import Found, Kind, Place
from services.db.outputs.conf import Block
from services.db.outputs.dump_file import origin_of
from services.db.outputs.flusher import FlushError
from services.db.outputs.schedule import FIRST_RETRY, PAUSE
from services.db.outputs.startup import manifest, read
from services.db.redo.interface import RedoLogError
from shared.errors import ApiError
from tests.db import rows
from tests.db.outputs.primary import Primary, names


class Held(Disk):
    """Its writers tell when they begin, and wait until they may go on."""

    def __init__(self) -> None:
        self._begun, self._begin = os.pipe()
        self._gate, self._open = os.pipe()

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        if offset == 0:
            os.write(self._begin, os.getpid().to_bytes(8, "big"))
            os.read(self._gate, 1)
        return super().write(descriptor, data, offset)

    async def writer(self) -> int:
        """The process that has begun to write."""
        return int.from_bytes(await asyncio.to_thread(os.read, self._begun, 8), "big")

    def go_on(self, writes: int = 3) -> None:
        os.write(self._open, b"x" * writes)

    def close_all(self) -> None:
        for descriptor in (self._begun, self._begin, self._gate, self._open):
            os.close(descriptor)


class Full(Disk):
    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncIterator[Primary]:
    running = Primary(tmp_path)
    await running.write(rows.network("old"))
    yield running
    await running.stop()


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[tuple[Primary, Held]]:
    disk = Held()
    running = Primary(tmp_path, disk=disk)
    await running.write(rows.network("old"))
    yield running, disk
    await running.stop()
    disk.close_all()


def written(path: Path) -> set[str]:
    return names(read(Found(Place(path, Kind.OUTPUT), 0)).store)


def leftovers(path: Path) -> list[str]:
    return [file.name for file in path.parent.glob("*.new")]


async def test_the_file_has_all_rows(primary: Primary) -> None:
    generation = await primary.flusher.flush(primary.blocks[0])
    assert written(primary.path) == {"old"}
    assert manifest(primary.path).generation == generation == primary.store.generation
    assert primary.path.with_name("state.db.generation").read_text() == str(generation)


async def test_no_transaction_waits_and_the_file_is_of_one_moment(held: tuple[Primary, Held]) -> None:
    primary, disk = held
    flushing = asyncio.create_task(primary.flusher.flush(primary.blocks[0]))
    await disk.writer()
    before = primary.store.generation
    await primary.write(rows.network("new"))
    assert not flushing.done()
    disk.go_on()
    assert await flushing == before
    assert written(primary.path) == {"old"}
    assert names(primary.store) == {"old", "new"}


async def test_one_writes_all_rows_at_a_time(primary: Primary) -> None:
    async with primary.writing:
        flushing = asyncio.create_task(primary.flusher.flush(primary.blocks[0]))
        await asyncio.sleep(0)
        assert not primary.path.exists()
    await flushing
    assert primary.path.exists()


async def test_a_writer_that_is_killed_leaves_the_old_file(held: tuple[Primary, Held]) -> None:
    primary, disk = held
    disk.go_on()
    await primary.flusher.flush(primary.blocks[0])
    await disk.writer()
    for _ in range(2):
        await disk.writer()  # of the two small files
    await primary.write(rows.network("new"))
    flushing = asyncio.create_task(primary.flusher.flush(primary.blocks[0]))
    os.kill(await disk.writer(), signal.SIGKILL)
    with pytest.raises(FlushError, match="status -9"):
        await flushing
    assert (written(primary.path), leftovers(primary.path)) == ({"old"}, [])


async def test_a_flush_that_is_cancelled_leaves_no_writer_and_no_file(held: tuple[Primary, Held]) -> None:
    primary, disk = held
    flushing = asyncio.create_task(primary.flusher.flush(primary.blocks[0]))
    child = await disk.writer()
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert (primary.path.exists(), leftovers(primary.path)) == (False, [])
    assert not primary.writing.locked()


async def test_a_full_disk_is_told_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    primary = Primary(tmp_path, disk=Full())
    await primary.write(rows.network("old"))
    primary.later(PAUSE)
    with caplog.at_level(logging.ERROR, "db.outputs"):
        await primary.flusher.look()
        await primary.flusher.look()
        primary.later(FIRST_RETRY)
        await primary.flusher.look()
    told = [record for record in caplog.records if "is not written" in record.message]
    assert len(told) == 2, "once for each attempt"
    assert (primary.path.exists(), leftovers(primary.path)) == (False, [])
    await primary.stop()


async def test_what_is_taken_back_meanwhile_does_not_get_into_the_file(
    held: tuple[Primary, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, disk = held
    stuck = asyncio.Event()
    loop = asyncio.get_running_loop()
    failing = os.pipe()

    def append(*_: object) -> None:
        loop.call_soon_threadsafe(stuck.set)
        os.read(failing[0], 1)
        raise RedoLogError("no room")

    monkeypatch.setattr(primary.log, "append", append)
    doomed = asyncio.create_task(primary.write(rows.network("doomed")))
    await stuck.wait()
    flushing = asyncio.create_task(primary.flusher.flush(primary.blocks[0]))
    await disk.writer()
    disk.go_on()
    os.write(failing[1], b"x")
    with pytest.raises(ApiError):
        await doomed
    with pytest.raises(FlushError):
        await flushing
    assert not primary.path.exists()
    assert names(primary.store) == {"old"}
    disk.go_on()
    generation = await primary.flusher.flush(primary.blocks[0])
    origin = origin_of(primary.path)
    assert origin is not None
    assert origin.persistent <= generation, "else the file would seem to have more than the redo log"
    for descriptor in failing:
        os.close(descriptor)


async def test_a_flush_is_due_after_a_while_and_for_something_new(primary: Primary) -> None:
    await primary.flusher.look()
    assert not primary.path.exists()
    primary.later(PAUSE)
    await primary.flusher.look()
    first = primary.path.stat().st_ino
    primary.later(PAUSE)
    await primary.flusher.look()
    assert primary.path.stat().st_ino == first, "nothing has changed"
    await primary.write(rows.network("new"))
    await primary.flusher.look()
    assert written(primary.path) == {"old", "new"}


async def test_at_the_end_the_preferred_file_is_written(tmp_path: Path) -> None:
    blocks = [Block(tmp_path / "first.db"), Block(tmp_path / "last.db", compress=True)]
    primary = Primary(tmp_path, blocks)
    await primary.write(rows.network("n"))
    await primary.flusher.close()
    assert (blocks[0].path.exists(), written(blocks[1].path)) == (False, {"n"})
    await primary.stop()


async def test_a_database_without_rows_is_not_written(tmp_path: Path) -> None:
    primary = Primary(tmp_path)
    await primary.flusher.close()
    assert not primary.path.exists()
    await primary.stop()


async def test_a_folder_that_is_not_there_does_not_end_the_process(tmp_path: Path) -> None:
    primary = Primary(tmp_path, [Block(tmp_path / "missing" / "state.db")])
    await primary.write(rows.network("n"))
    await primary.flusher.close()
    assert primary.flusher.records[primary.path].failures == 1
    await primary.stop()
