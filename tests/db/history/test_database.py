"""The history of a real database process: what is acknowledged is told, what is taken back not, kills lose nothing."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.db import service as db_service
from services.db.committer import Committer
from services.db.history.history import History
from services.db.recovery import restore
from services.db.redo.file import FileRedoLog
from shared.bus.context import CallContext, current
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config
from shared.contracts.db import (
    RESTORE,
    RESTORE_PART,
    TRANSACT,
    Change,
    Delete,
    Delta,
    Restore,
    RestorePart,
    RowCreated,
    RowModified,
    Transact,
    Update,
)
from shared.contracts.db_history import HISTORY, HistoryEntry, HistoryRequest
from shared.errors import ApiError
from shared.logs import track_id
from shared.service import Service
from tests.api.harness import QUICK, kill
from tests.db import rows
from tests.db.history.commits import values
from tests.support.faulty_disk import Fault, FaultyDisk


class Process:
    """A database process on the bus in memory, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = FaultyDisk()
        self._broker = MemoryBroker()

    async def start(self, **options: Any) -> None:
        config = Config(
            service="db", state_dir=str(self.folder), bus=BusConfig(url="memory:"), hosts=[], options=options
        )
        self.service = Service(config, await self._broker.connect("db", QUICK))
        await db_service.setup(self.service, self.disk)
        await self.service.open_queues()
        self.client = await self._broker.connect("client", QUICK)

    async def stop(self) -> None:
        await self.client.close()
        await self.service.close()

    async def kill(self) -> None:
        await self.client.close()
        await kill(self.service)

    async def transact(self, *changes: Change, **context: Any) -> int:
        token = current.set(CallContext(**context))
        try:
            return (await self.client.call(TRANSACT, Transact(changes=list(changes)))).generation
        finally:
            current.reset(token)

    async def history(self, **request: Any) -> list[HistoryEntry]:
        page = await self.client.call(HISTORY, HistoryRequest(oldest_first=True, limit=1000, **request))
        return page.entries


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    made = Process(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def test_who_did_what_is_told_after_it_was_acknowledged(process: Process) -> None:
    network = rows.network("before")
    await process.transact(network)
    session = "OpaqueRef:session"
    update = Update(cls="network", ref=network.ref, fields={"name_label": "after"})
    generation = await process.transact(update, session=session, user="mary", call="network.set_name_label")
    made, changed = await process.history(ref=network.ref)
    assert made.changes[0].kind == "add"
    assert (changed.generation, changed.call, changed.user) == (generation, "network.set_name_label", "mary")
    assert changed.session == track_id(session)
    assert values(changed.changes[0]) == {"name_label": ("before", "after")}
    assert await process.history(session=session) == [changed]


async def test_old_values_are_those_before_the_commit_also_when_many_share_a_write(process: Process) -> None:
    network = rows.network("0")
    await process.transact(network)
    updates = [Update(cls="network", ref=network.ref, fields={"name_label": str(number)}) for number in range(1, 51)]
    await asyncio.gather(*map(process.transact, updates))
    _, *changed = await process.history(ref=network.ref)
    assert [values(entry.changes[0])["name_label"] for entry in changed] == [
        (str(number - 1), str(number)) for number in range(1, 51)
    ]


async def test_a_commit_that_is_taken_back_never_was(process: Process) -> None:
    network = rows.network("before")
    await process.transact(network)
    process.disk.faults = [Fault("write", errno.ENOSPC, times=1)]
    with pytest.raises(ApiError):
        await process.transact(Update(cls="network", ref=network.ref, fields={"name_label": "lost"}))
    process.disk.faults = []
    await process.transact(Update(cls="network", ref=network.ref, fields={"name_label": "after"}))
    told = [values(entry.changes[0])["name_label"] for entry in await process.history(ref=network.ref)]
    assert told == [("", "before"), ("before", "after")]


async def test_after_a_kill_the_redo_log_tells_what_was_not_written_down(tmp_path: Path) -> None:
    process = Process(tmp_path)
    await process.start()
    one, two = rows.network("one"), rows.network("two")
    await process.transact(one)
    assert len(await process.history(ref=one.ref)) == 1
    await process.kill()
    shutil.copytree(tmp_path / "history", tmp_path / "kept")
    await process.start()
    await process.transact(two, task="OpaqueRef:task", session="OpaqueRef:session", call="network.create")
    await process.transact(Delete(cls="network", ref=one.ref))
    await process.history()
    await process.kill()
    # As if the process had died before the history's thread came to it.
    shutil.rmtree(tmp_path / "history")
    (tmp_path / "kept").rename(tmp_path / "history")
    await process.start()
    [made] = await process.history(ref=two.ref)
    assert (made.task, made.session) == ("OpaqueRef:task", track_id("OpaqueRef:session"))
    assert made.call == "network.create"
    assert "redo log" in made.note
    first, last = await process.history(ref=one.ref)
    assert (first.note, last.changes[0].kind, last.changes[0].name) == ("", "del", "one")
    await process.stop()


async def test_a_restored_database_is_one_entry(process: Process) -> None:
    await process.transact(rows.network("lost"))
    await process.client.call(RESTORE_PART, RestorePart(restore="r", number=0, rows=[]))
    restored = await process.client.call(RESTORE, Restore(restore="r", parts=1, generation=1000))
    *_, entry = await process.history()
    assert (entry.kind, entry.generation, entry.term) == ("restored", restored.generation, restored.term)
    assert "0 rows" in entry.note


async def test_the_options_switch_it_off_or_have_volatile_rows_told(tmp_path: Path) -> None:
    process = Process(tmp_path)
    await process.start(history_days=0)
    await process.transact(rows.network())
    page = await process.client.call(HISTORY, HistoryRequest())
    assert (page.entries, page.recording) == ([], False)
    await process.stop()
    await process.start(history_volatile=True)
    task = rows.task("t")
    await process.transact(task)
    assert [entry.changes[0].name for entry in await process.history(ref=task.ref)] == ["t"]
    await process.stop()


async def test_what_a_standby_follows_is_its_history_too(tmp_path: Path) -> None:
    log = FileRedoLog(tmp_path / "redo", "boot")
    store = restore(log.recover(), "boot")
    log.begin(store.generation, store.term)
    published: list[Delta] = []

    async def publish(deltas: Sequence[Delta]) -> None:
        published.extend(deltas)

    committer, history = Committer(store, log, publish), History(tmp_path / "history", 1 << 20, 30)
    committer.observer = history
    work = [asyncio.create_task(committer.run()), asyncio.create_task(history.run(0, 1))]
    session = RowCreated(cls="session", ref="OpaqueRef:s", fields={"auth_user_name": "mary", "originator": "xe"})
    network = RowCreated(cls="network", ref="OpaqueRef:n", fields={"uuid": "u", "name_label": "before"})
    renamed = RowModified(cls="network", ref="OpaqueRef:n", fields={"name_label": "after"})
    await committer.follow(Delta(term=1, generation=1, previous=0, changes=[session, network]))
    by: dict[str, Any] = {"session": "OpaqueRef:s", "call": "network.set_name_label", "task": "OpaqueRef:t"}
    await committer.follow(Delta(term=1, generation=2, previous=1, changes=[renamed], **by))
    [entry] = (await history.page(HistoryRequest(field="name_label", limit=1))).entries
    assert (entry.call, entry.task, entry.user, entry.originator) == (by["call"], by["task"], "mary", "xe")
    assert values(entry.changes[0]) == {"name_label": ("before", "after")}
    await history.close(2, 1)
    work[0].cancel()
    await asyncio.gather(*work, return_exceptions=True)
    log.close()
