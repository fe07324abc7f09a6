"""The audit log's file: batches, rotation, disks that are full, clean stops, reading."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.api.audit import trail as module
from services.api.audit.rotating import RotatingFile
from services.api.audit.trail import Trail


def lost(number: int) -> str:
    return f"{number} lost"


def line(number: int) -> str:
    return f"[20250102T03:04:{number:02d}.000Z|audit|host1|0 unix|x|audit] {number}"


@contextlib.asynccontextmanager
async def running(trail: Trail) -> AsyncIterator[Trail]:
    work = asyncio.create_task(trail.run())
    try:
        yield trail
    finally:
        await trail.close()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def text(trail: Trail, since: str = "") -> list[str]:
    return b"".join([piece async for piece in trail.since(since)]).decode().splitlines()


async def test_lines_are_written_in_their_order_without_anybody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with running(Trail(RotatingFile(path), lost)) as trail:
        for number in range(10):
            trail.note(line(number))
        assert not path.exists()
        assert await text(trail) == [line(number) for number in range(10)]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_clean_stop_loses_nothing_that_was_noted_before_or_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    trail = Trail(RotatingFile(path), lost)
    for number in range(5000):
        trail.note(f"line {number}")
    work = asyncio.create_task(trail.run())
    await asyncio.sleep(0)
    closing = asyncio.create_task(trail.close())
    await asyncio.sleep(0)
    trail.note("while it closes")
    await closing
    trail.note("after all")
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert path.read_text().splitlines() == [f"line {n}" for n in range(5000)] + ["while it closes", "after all"]


async def test_a_writer_that_is_cancelled_within_a_batch_writes_it_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    trail = Trail(RotatingFile(path), lost)
    work = asyncio.create_task(trail.run())
    trail.note("once")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await trail.close()
    assert path.read_text() == "once\n"


async def test_a_large_file_moves_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with running(Trail(RotatingFile(path, limit=200, kept=2), lost)) as trail:
        for number in range(10):
            trail.note(line(number))
            await trail.flush()
        kept = await text(trail)
        assert kept == [line(number) for number in range(10)][-len(kept) :]
        assert 5 < len(kept) < 10
        sizes = {file.name: file.stat().st_size for file in RotatingFile(path, kept=2).files()}
        assert list(sizes) == ["audit.log.2", "audit.log.1", "audit.log"]
        assert max(sizes.values()) <= 200
        assert not path.with_name("audit.log.3").exists()
        assert await text(trail, "2025-01-02T03:04:09Z") == [line(9)]


async def test_a_log_is_gone_on_with_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text("whole\nto")
    async with running(Trail(RotatingFile(path), lost)) as trail:
        trail.note("next")
    assert path.read_text() == "whole\nto\nnext\n"


async def test_what_is_read_stays_readable_while_files_move(tmp_path: Path) -> None:
    async with running(Trail(RotatingFile(tmp_path / "audit.log", limit=100, kept=2), lost)) as trail:
        trail.note(line(1))
        pieces = trail.since("")
        first = await anext(pieces)
        for number in range(2, 9):
            trail.note(line(number))
            await trail.flush()
        assert first.decode().splitlines() == [line(1)]
        assert [piece async for piece in pieces] == []


class FullDisk(RotatingFile):
    """`attempts`: tells of each failed one."""

    full = True

    def __init__(self, path: Path, attempted: Callable[[], object]) -> None:
        super().__init__(path)
        self._attempted = attempted

    def write(self, batch: bytes) -> None:
        if self.full:
            self._attempted()
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(batch)


async def test_a_full_disk_delays_lines_and_the_most_recent_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "MOST", 3)
    loop, attempted = asyncio.get_running_loop(), asyncio.Event()
    file = FullDisk(tmp_path / "audit.log", lambda: loop.call_soon_threadsafe(attempted.set))
    async with running(Trail(file, lost)) as trail:
        trail.note(line(0))
        await asyncio.wait_for(attempted.wait(), 30)
        for number in range(1, 5):
            trail.note(line(number))
        file.full = False
    assert (tmp_path / "audit.log").read_text().splitlines() == ["2 lost", line(2), line(3), line(4)]


async def test_lines_go_to_whoever_keeps_them_for_all_and_stay_here_if_he_does_not_take_them(tmp_path: Path) -> None:
    taken: list[str] = []
    reachable = True

    async def forward(lines: list[str]) -> bool:
        if reachable:
            taken.extend(lines)
        return reachable

    async with running(Trail(RotatingFile(tmp_path / "audit.log"), lost, forward)) as trail:
        trail.note("there")
        await trail.flush()
        reachable = False
        trail.note("here")
    assert taken == ["there"]
    assert (tmp_path / "audit.log").read_text() == "here\n"
