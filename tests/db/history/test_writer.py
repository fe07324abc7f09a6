"""The history never fails or delays a commit, and says what it has missed."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.db.disk import Disk
from services.db.history import writer
from services.db.history.history import History
from services.db.transaction import inverse, resolve
from shared.contracts.db import Change, Delta, RowModified, Transact, Update
from shared.contracts.db_history import HistoryEntry, HistoryRequest
from shared.store import Store
from tests.db import rows
from tests.db.history.commits import values
from tests.support.faulty_disk import Fault, FaultyDisk


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
async def history(tmp_path: Path, disk: FaultyDisk) -> AsyncIterator[History]:
    async with running(History(tmp_path, 1 << 20, 30, disk=disk)) as kept:
        yield kept


@asynccontextmanager
async def running(history: History, generation: int = 0) -> AsyncIterator[History]:
    """Until the end of the process."""
    work = asyncio.create_task(history.run(generation, 1))
    await asyncio.sleep(0)
    yield history
    await history.close(generation + 3, 1)
    await work


def commit(history: History, store: Store, *changes: Change) -> None:
    """As the committer does."""
    resolved = resolve(store, Transact(changes=list(changes)))
    delta = Delta(term=1, generation=store.generation + 1, previous=store.generation, changes=resolved)
    undo = inverse(store, resolved)
    then = history.applied(store, delta, undo, store.apply(delta))
    assert (then is not None) == history.on
    if then is not None:
        then()


async def entries(history: History) -> list[HistoryEntry]:
    """The oldest first, without the start."""
    page = await history.page(HistoryRequest(oldest_first=True, limit=1000))
    assert not page.more
    return [entry for entry in page.entries if entry.kind != "started"]


async def test_a_commit_is_there_for_who_asks_after_it(history: History, store: Store) -> None:
    network = rows.network("before")
    commit(history, store, network)
    commit(history, store, Update(cls="network", ref=network.ref, fields={"name_label": "after"}))
    _, last = await entries(history)
    assert (last.generation, values(last.changes[0])) == (2, {"name_label": ("before", "after")})


async def test_start_and_end_of_the_process_are_told(tmp_path: Path, store: Store) -> None:
    for generation in (0, 5):
        async with running(History(tmp_path, 1 << 20, 30), generation):
            pass
    async with running(History(tmp_path, 1 << 20, 30), 9) as kept:
        page = await kept.page(HistoryRequest(oldest_first=True))
    told = [(entry.kind, entry.generation) for entry in page.entries]
    assert told == [("started", 0), ("stopped", 3), ("started", 5), ("stopped", 8), ("started", 9)]


async def test_what_a_full_disk_has_lost_is_told_as_a_gap(
    history: History, store: Store, disk: FaultyDisk, caplog: pytest.LogCaptureFixture
) -> None:
    commit(history, store, rows.network())
    assert len(await entries(history)) == 1
    disk.faults = [Fault("write", errno.ENOSPC, room=10)]
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            commit(history, store, rows.network())
            assert len(await entries(history)) == 1
        assert history.dropped == 3
        disk.faults = []
        commit(history, store, rows.network())
        _, gap, last = await entries(history)
    assert (gap.kind, gap.generation, last.generation) == ("gap", 4, 5)
    assert gap.note.startswith("3 entries from generation 2 to 4 are missing")
    assert "No space left" in gap.note
    assert [record.levelname for record in caplog.records if record.name == "db.history"] == ["ERROR", "WARNING"]


async def test_a_folder_that_cannot_be_opened_is_tried_again(tmp_path: Path, store: Store) -> None:
    disk = FaultyDisk()
    disk.faults = [Fault("open")]
    async with running(History(tmp_path, 1 << 20, 30, disk=disk)) as kept:
        commit(kept, store, rows.network())
        assert await entries(kept) == []
        disk.faults = []
        commit(kept, store, rows.network())
        assert [entry.kind for entry in await entries(kept)] == ["gap", "commit"]


async def test_a_commit_that_cannot_be_described_is_a_gap_and_no_more(history: History, store: Store) -> None:
    change = RowModified(cls="network", ref="OpaqueRef:1", fields={"name_label": "x"})
    strange = history.applied(store, Delta(term=1, generation=1, previous=0, changes=[change]), [], [])
    assert strange is not None
    strange()
    commit(history, store, rows.network())
    assert [entry.kind for entry in await entries(history)] == ["gap", "commit"]


async def test_a_disk_that_hangs_delays_nobody_and_does_not_fill_the_memory(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_WAITING", 5)
    go_on, hanging = threading.Event(), threading.Event()

    class Hanging(Disk):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
            hanging.set()
            go_on.wait(10)
            return super().write(descriptor, data, offset)

    async with running(History(tmp_path, 1 << 20, 30, disk=Hanging())) as kept:
        asking = asyncio.create_task(kept.written())
        await asyncio.to_thread(hanging.wait, 10)
        for _ in range(100):
            commit(kept, store, rows.network())
        assert (store.generation, kept.dropped) == (100, 95)
        go_on.set()
        await asking
        assert [entry.generation for entry in await entries(kept)] == [100, 1, 2, 3, 4, 5]
        assert (await entries(kept))[0].kind == "gap"


async def test_switched_off_it_records_nothing_and_says_so(tmp_path: Path, store: Store) -> None:
    for limit, days in ((0, 30.0), (1 << 20, 0.0)):
        async with running(History(tmp_path / "history", limit, days)) as kept:
            commit(kept, store, rows.network())
            page = await kept.page(HistoryRequest())
            assert (page.entries, page.recording) == ([], False)
    assert not (tmp_path / "history").exists()
