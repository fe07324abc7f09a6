"""Another database in the place of this one: all of it or nothing, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import pytest

from services.db.checkpoint import Checkpoints
from services.db.committer import Committer
from services.db.recovery import restore
from services.db.redo.file import FileCheckpoint, FileRedoLog
from services.db.restores import Restores
from shared.contracts.db import Change, Committed, Create, Delta, Restore, RestorePart, SnapshotRow, Transact
from shared.errors import ApiError
from shared.store import Store
from tests.db import rows, soundness

BOOT = "boot"


class Primary:
    """The database's parts that matter, on a real folder."""

    def __init__(self, folder: Path) -> None:
        self.log = FileRedoLog(folder, BOOT)
        self.store: Store = restore(self.log.recover(), BOOT)
        self.store.term += 1
        self.log.begin(self.store.generation, self.store.term)
        self.published: list[Delta] = []
        self.committer = Committer(self.store, self.log, self._publish)
        checkpoints = Checkpoints(self.committer, self.log, BOOT)
        self.restores = Restores(self.committer, checkpoints, asyncio.Lock(), self._restored)
        self._run = asyncio.create_task(self.committer.run())

    async def _publish(self, deltas: Sequence[Delta]) -> None:
        self.published += deltas

    async def _restored(self, delta: Delta) -> None:
        self.published.append(delta)

    async def write(self, *changes: Change) -> Committed:
        return await self.committer.transact(Transact(changes=list(changes)))

    async def bring(self, *parts: list[SnapshotRow]) -> None:
        for number, part in enumerate(parts):
            await self.restores.part(RestorePart(restore="r", number=number, rows=part))

    async def restore(self, parts: int = 1, generation: int = 0, **options: object) -> Committed:
        request = Restore(restore="r", parts=parts, generation=generation, **options)  # type: ignore[arg-type]
        return await self.restores.restore(request)

    def names(self) -> set[str]:
        return names(self.store)

    async def stop(self) -> None:
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)
        self.log.close()


def names(store: Store) -> set[str]:
    return {str(row["name_label"]) for row in store.rows("network").values()}


def on_disk(folder: Path) -> Store:
    """What a process that starts now finds; the folder stays as it is."""
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    store = restore(FileRedoLog(copy, BOOT).recover(), BOOT)
    soundness.assert_sound(store)
    return store


def network(name: str) -> SnapshotRow:
    return SnapshotRow(
        cls="network",
        ref=f"OpaqueRef:{name}",
        created=1,
        modified=1,
        fields={"uuid": name, "name_label": name},
    )


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncIterator[Primary]:
    running = Primary(tmp_path / "redo")
    await running.write(rows.network("old"))
    yield running
    await running.stop()


@pytest.fixture
def folder(primary: Primary) -> Path:
    return primary.log.folder


async def test_the_rows_are_the_other_databases_at_once_and_after_a_start(primary: Primary, folder: Path) -> None:
    await primary.bring([network("a")], [network("b")])
    assert (primary.names(), names(on_disk(folder))) == ({"old"}, {"old"})
    before = primary.store.generation
    committed = await primary.restore(parts=2)
    assert primary.names() == names(on_disk(folder)) == {"a", "b"}
    assert committed.generation == primary.store.generation == before + 1
    assert on_disk(folder).generation == committed.generation


async def test_what_follows_is_written_behind_it(primary: Primary, folder: Path) -> None:
    await primary.bring([network("a")])
    await primary.restore()
    await primary.write(rows.network("later"))
    assert primary.names() == names(on_disk(folder)) == {"a", "later"}


async def test_followers_hear_of_a_new_term(primary: Primary) -> None:
    term = primary.store.term
    await primary.bring([network("a")])
    committed = await primary.restore()
    last = primary.published[-1]
    assert (last.term, last.generation, last.changes) == (term + 1, committed.generation, [])


async def test_generations_go_on_above_both_databases(primary: Primary) -> None:
    await primary.bring([network("a")])
    committed = await primary.restore(generation=5000)
    assert committed.generation == 5001
    row = primary.store.find("network", "OpaqueRef:a")
    assert row is not None
    assert (row.created, row.modified) == (5001, 5001)


async def test_rows_that_stay_refer_to_the_other_databases(primary: Primary, folder: Path) -> None:
    task = rows.task()
    task = Create(cls="task", ref=task.ref, fields={**task.fields, "resident_on": "OpaqueRef:here"})
    other = rows.task()
    await primary.write(task, other)
    await primary.bring([network("a")])
    await primary.restore(rows=[task.ref, "OpaqueRef:gone"], renamed={"OpaqueRef:here": "OpaqueRef:there"})
    assert primary.store.get("task", task.ref, "resident_on") == "OpaqueRef:there"
    assert on_disk(folder).get("task", task.ref, "resident_on") == "OpaqueRef:there"
    assert other.ref not in primary.store.by_ref


async def test_classes_can_stay(primary: Primary) -> None:
    tasks = [rows.task(), rows.task()]
    await primary.write(*tasks)
    await primary.bring([network("a")])
    await primary.restore(keep=["task"])
    assert set(primary.store.rows("task")) == {task.ref for task in tasks}


async def test_a_repeated_request_restores_once(primary: Primary) -> None:
    await primary.bring([network("a")])
    first = await primary.restore()
    await primary.write(rows.network("later"))
    assert (await primary.restore()).generation == first.generation
    assert primary.names() == {"a", "later"}


async def test_a_part_that_has_not_arrived_changes_nothing(primary: Primary) -> None:
    await primary.bring([network("a")])
    with pytest.raises(ApiError, match="1 parts"):
        await primary.restore(parts=2)
    assert primary.names() == {"old"}


async def test_rows_of_volatile_classes_are_refused(primary: Primary) -> None:
    session = SnapshotRow(cls="session", ref="OpaqueRef:s", created=1, modified=1, fields={})
    with pytest.raises(ApiError, match="session"):
        await primary.bring([session])


async def test_a_change_that_was_decided_on_the_old_rows_is_decided_again(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives while the rows are being replaced."""
    taken = primary.committer.take_over
    late: list[asyncio.Task[Committed]] = []

    async def slow(store: Store, request: str) -> None:
        late.append(asyncio.create_task(primary.write(rows.network("late"))))
        await asyncio.sleep(0)
        await taken(store, request)

    monkeypatch.setattr(primary.committer, "take_over", slow)
    await primary.bring([network("a")])
    await primary.restore()
    with pytest.raises(ApiError, match="DB_CONFLICT"):
        await late[0]
    assert primary.names() == {"a"}


# ---- failures


def failing(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The child that writes the rows ends `where` (before | after) it has written them."""
    write = FileCheckpoint.write

    def killed(self: FileCheckpoint, found: Iterable[SnapshotRow]) -> None:
        if where == "after":
            write(self, found)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(FileCheckpoint, "write", killed)


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_writer_that_is_killed_leaves_the_old_rows(
    primary: Primary, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    await primary.bring([network("a")])
    with monkeypatch.context() as patch:
        failing(patch, where)
        with pytest.raises(ApiError, match="nothing was restored"):
            await primary.restore()
    assert primary.names() == names(on_disk(folder)) == {"old"}
    await primary.write(rows.network("more"))
    assert names(on_disk(folder)) == {"old", "more"}


async def test_a_restore_that_is_cancelled_leaves_the_old_rows(
    primary: Primary, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()

    def stuck(self: FileCheckpoint, found: Iterable[SnapshotRow]) -> None:
        os.write(write, b"x")
        signal.pause()

    monkeypatch.setattr(FileCheckpoint, "write", stuck)
    await primary.bring([network("a")])
    restoring = asyncio.create_task(primary.restore())
    await asyncio.to_thread(os.read, read, 1)
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    await primary.write(rows.network("more"))
    assert primary.names() == names(on_disk(folder)) == {"old", "more"}
    os.close(read)
    os.close(write)


async def test_whatever_a_process_that_dies_has_reached_is_the_old_database_or_the_new(
    primary: Primary, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder as it is before and after each step of the file's way to its name."""
    seen: list[set[str]] = []

    def look(*_: object) -> None:
        seen.append(names(on_disk(folder)))

    become = Store.become

    def watched(self: Store, other: Store) -> None:
        look()
        become(self, other)

    begin = primary.log.begin

    def begun(generation: int, term: int) -> None:
        look()
        begin(generation, term)
        look()

    monkeypatch.setattr(Store, "become", watched)
    monkeypatch.setattr(primary.log, "begin", begun)
    await primary.bring([network("a")])
    look()
    await primary.restore()
    look()
    assert seen == [{"old"}, {"a"}, {"a"}, {"a"}, {"a"}]
