"""Group commit: nothing is answered before it is durable, and what is not durable never happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.db import committer, health
from services.db.checkpoint import Checkpoints
from services.db.child import Child
from services.db.committer import Committer
from services.db.disk import Disk
from services.db.health import Policy
from services.db.recovery import restore
from services.db.redo.file import FileCheckpoint, FileRedoLog
from services.db.redo.interface import Checkpoint, Entry, LogFull, Recovered, RedoLogError
from shared.contracts.db import Change, Delete, Delta, MapPut, RowChange, Touch, Transact, Unchanged, Update
from shared.errors import ApiError
from shared.store import Store
from tests.db import rows, soundness

BOOT = "boot"


class Gate:
    """A redo log whose writes wait until they are let through, and fail when told to."""

    kind = "gate"
    bytes = syncs = backlog = 0
    roomy = True

    def __init__(self, log: FileRedoLog) -> None:
        self._log = log
        self.open = asyncio.Event()
        self.open.set()
        self.broken = ""
        self.full = False
        self.step = 1
        self.begun = 0
        self.appends: list[tuple[int, bool]] = []
        self._loop = asyncio.get_running_loop()

    def generations(self, changes: Sequence[RowChange]) -> int:
        return self.step * len(changes)

    def recover(self) -> Recovered:
        return self._log.recover()

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        if sync:
            asyncio.run_coroutine_threadsafe(self.open.wait(), self._loop).result(10)
        if self.broken:
            raise RedoLogError(self.broken)
        if self.full:
            raise LogFull("no room")
        self.appends.append((len(entries), sync))
        self._log.append(entries, sync)

    def begin(self, generation: int, term: int) -> None:
        if self.broken:
            raise RedoLogError(self.broken)
        self.begun += 1
        self._log.begin(generation, term)

    def checkpoint(self) -> Checkpoint:
        return _Room(self, self._log)

    def close(self) -> None:
        self._log.close()


class _Room(FileCheckpoint):
    """Makes room when it counts."""

    def __init__(self, gate: Gate, log: FileRedoLog) -> None:
        super().__init__(log, Disk())
        self._gate = gate

    def finish(self) -> None:
        super().finish()
        self._gate.full = False


class Running:
    def __init__(self, folder: Path, policy: Policy = "refuse") -> None:
        self.folder = folder
        self.log = FileRedoLog(folder, BOOT)
        found = self.log.recover()
        self.store: Store = restore(found, BOOT)
        self.store.term += 1
        self.log.begin(self.store.generation, self.store.term)
        self.gate = Gate(self.log)
        self.published: list[Delta] = []
        self.messages: list[int] = []
        self.health: list[tuple[bool, str]] = []
        self.told = asyncio.Event()
        self.committer = Committer(self.store, self.gate, self._publish, policy, self._on_health)
        self.committer.remember(found.requests.items())
        self.checkpoints = Checkpoints(self.committer, self.gate, BOOT)
        self.committer.make_room = self.checkpoints.write_between
        self.task = asyncio.create_task(self.committer.run())

    def on_disk(self) -> Store:
        """What a start would find now."""
        store = restore(FileRedoLog(self.folder, BOOT).recover(), BOOT)
        soundness.assert_sound(store)
        return store

    def _on_health(self, healthy: bool, why: str) -> None:
        self.health.append((healthy, why))
        self.told.set()

    async def _publish(self, deltas: Sequence[Delta]) -> None:
        self.published += deltas
        self.messages.append(len(deltas))

    async def transact(self, *changes: object, request: str = "") -> int:
        made = await self.committer.transact(Transact(changes=list(changes)), request_id=request)  # type: ignore[arg-type]
        return made.generation

    async def close(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.log.close()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    yield running
    await running.close()


async def test_an_answer_waits_for_stable_storage(db: Running) -> None:
    db.gate.open.clear()
    call = asyncio.create_task(db.transact(rows.network()))
    await asyncio.sleep(0.05)
    assert not call.done()
    assert db.published == []
    db.gate.open.set()
    generation = await call
    assert [delta.generation for delta in db.published] == [generation]


async def test_what_arrives_during_a_write_shares_the_next_one(db: Running) -> None:
    db.gate.open.clear()
    first = asyncio.create_task(db.transact(rows.network()))
    await asyncio.sleep(0.02)
    others = [asyncio.create_task(db.transact(rows.network(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    db.gate.open.set()
    await asyncio.gather(first, *others)
    assert len(db.gate.appends) == 2
    assert db.messages == [1, 50]
    generations = [delta.generation for delta in db.published]
    assert generations == list(range(generations[0], generations[0] + 51))
    assert all(
        later.previous == earlier.generation for earlier, later in zip(db.published, db.published[1:], strict=False)
    )


async def test_a_volatile_change_alone_needs_no_sync_but_keeps_its_place(db: Running) -> None:
    await db.transact(rows.task())
    assert [sync for _, sync in db.gate.appends] == [False]
    db.gate.open.clear()
    durable = asyncio.create_task(db.transact(rows.network()))
    await asyncio.sleep(0.02)
    volatile = asyncio.create_task(db.transact(rows.task()))
    await asyncio.sleep(0.02)
    assert not volatile.done()
    db.gate.open.set()
    assert await durable < await volatile


async def test_a_log_that_cannot_be_written_refuses_and_takes_back(db: Running) -> None:
    made = rows.network("before")
    before = await db.transact(made)
    db.gate.broken = "disk full"
    calls = [
        asyncio.create_task(db.transact(Update(cls="network", ref=made.ref, fields={"name_label": f"after{n}"})))
        for n in range(3)
    ]
    for call in calls:
        with pytest.raises(ApiError, match="disk full"):
            await call
    assert db.store.get("network", made.ref, "name_label") == "before"
    assert not db.committer.healthy
    db.gate.broken = ""
    await db.transact(Update(cls="network", ref=made.ref, fields={"name_label": "at last"}))
    assert db.committer.healthy
    assert db.store.get("network", made.ref, "name_label") == "at last"
    last = db.published[-1]
    assert last.previous == before, "followers hear nothing of what was taken back"
    assert last.generation == before + 4, "numbers that the log was offered are not used again"


async def test_nobody_sees_a_generation_that_a_start_would_not_find(db: Running) -> None:
    """While the log is broken the process may be killed: the next one goes on from the last durable commit."""
    before = await db.transact(rows.network())
    db.gate.broken = "disk full"
    with pytest.raises(ApiError, match="disk full"):
        await db.transact(rows.network())
    assert db.store.generation == db.committer.durable == db.on_disk().generation == before
    assert db.published[-1].generation == before


async def test_what_was_taken_back_is_no_conflict_for_those_who_never_saw_it(db: Running) -> None:
    made, gone = rows.network("before"), rows.network("goes")
    await db.transact(made, gone)
    facts = [Unchanged(cls="network", ref=ref, generation=db.published[-1].generation) for ref in (made.ref, gone.ref)]
    db.gate.broken = "disk full"
    lost: list[Change] = [
        Update(cls="network", ref=made.ref, fields={"name_label": "after"}),
        Touch(cls="network", ref=made.ref),
        Delete(cls="network", ref=gone.ref),
    ]
    for change in lost:
        with pytest.raises(ApiError, match="disk full"):
            await db.transact(change)
    db.gate.broken = ""
    found = Update(cls="network", ref=made.ref, fields={"name_label": "at last"})
    await db.committer.transact(Transact(changes=[found], preconditions=list(facts)))
    assert db.store.get("network", made.ref, "name_label") == "at last"


async def test_a_repeated_request_is_applied_once_even_after_a_restart(db: Running, tmp_path: Path) -> None:
    made = rows.network()
    await db.transact(made)
    put = MapPut(cls="network", ref=made.ref, field="other_config", key="k", value="v", new=True)
    first = await db.transact(put, request="q1")
    assert await db.transact(put, request="q1") == first
    await db.close()
    again = Running(tmp_path)
    try:
        assert await again.transact(put, request="q1") == first
    finally:
        await again.close()


async def test_two_at_once_with_the_same_id_share_one_commit(db: Running) -> None:
    made = rows.network()
    generations = await asyncio.gather(db.transact(made, request="q"), db.transact(made, request="q"))
    assert len(set(generations)) == 1


async def test_who_asks_again_is_answered_though_the_first_has_gone(db: Running) -> None:
    db.gate.open.clear()
    first = asyncio.create_task(db.transact(rows.network(), request="q"))
    await asyncio.sleep(0.02)
    again = asyncio.create_task(db.transact(rows.network(), request="q"))
    await asyncio.sleep(0)
    first.cancel()
    db.gate.open.set()
    assert await again == db.store.generation
    assert len(db.published) == 1


async def test_a_message_holds_no_more_commits_than_fit(db: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "MESSAGE", 2000)
    db.gate.open.clear()
    first = asyncio.create_task(db.transact(rows.network()))
    await asyncio.sleep(0.02)
    sizes = (10, 5000, 10, 10)
    others = [asyncio.create_task(db.transact(rows.network(str(n) + "x" * size))) for n, size in enumerate(sizes)]
    await asyncio.sleep(0)
    db.gate.open.set()
    await asyncio.gather(first, *others)
    assert db.messages == [1, 1, 1, 2]


async def test_a_checkpoint_under_load_loses_nothing(db: Running, tmp_path: Path) -> None:
    refs: list[str] = []

    async def write(count: int) -> None:
        for _ in range(count):
            made = rows.network()
            await db.transact(made)
            refs.append(made.ref)

    writers = [asyncio.create_task(write(30)) for _ in range(5)]
    done = []
    while not all(writer.done() for writer in writers):
        done.append(await db.checkpoints.write())
    await asyncio.gather(*writers)
    assert all(done)
    await db.close()
    found = FileRedoLog(tmp_path, BOOT).recover()
    store = restore(found, BOOT)
    assert set(store.rows("network")) == set(refs)
    assert store.generation == db.store.generation


async def test_after_a_machine_restart_volatile_rows_are_gone_and_generations_skip_ahead(
    db: Running, tmp_path: Path
) -> None:
    kept, lost = rows.vm(), rows.task()
    await db.transact(kept, lost)
    await db.transact(Update(cls="VM", ref=kept.ref, fields={"allowed_operations": ["start"]}))
    generation = db.store.generation
    await db.close()
    store = restore(FileRedoLog(tmp_path, "another boot").recover(), "another boot")
    assert set(store.rows("VM")) == {kept.ref}
    assert store.rows("task") == {}
    assert store.get("VM", kept.ref, "allowed_operations") == []
    assert store.generation > generation


async def test_commits_do_not_wait_for_a_writer_of_all_rows_that_was_given_up(
    db: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device may not let it die."""
    given_up: list[Child] = []
    checkpoint = db.log.checkpoint()
    with monkeypatch.context() as stuck:
        stuck.setattr(Child, "end", lambda child: given_up.append(child))
        stuck.setattr(checkpoint, "write", lambda _: time.sleep(10))
        source = SimpleNamespace(checkpoint=lambda: checkpoint)
        assert not await Checkpoints(db.committer, source, BOOT, limit=0.05).write()
    [child] = given_up
    assert not child.done.done()
    await db.transact(rows.network())
    await child.kill()


async def test_a_full_log_gets_room_by_a_checkpoint_and_the_commit_is_kept(db: Running) -> None:
    before = rows.network("before")
    await db.transact(before)
    db.gate.full = True
    after = rows.network("after")
    await db.transact(after)
    assert set(db.on_disk().rows("network")) == {before.ref, after.ref}


async def test_what_is_in_the_checkpoint_that_made_room_is_not_refused_when_the_log_fails_then(
    db: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say that it was not saved: the process ends, and the next one knows the request."""
    ended = asyncio.get_running_loop().create_future()

    def end(status: int) -> None:
        ended.set_result(status)
        raise asyncio.CancelledError

    finish = _Room.finish

    def breaks(room: _Room) -> None:
        finish(room)
        db.gate.broken = "device gone"

    monkeypatch.setattr(committer, "os", SimpleNamespace(_exit=end))
    monkeypatch.setattr(_Room, "finish", breaks)
    db.gate.full = True
    after = rows.network("after")
    calling = asyncio.create_task(db.transact(after, request="again"))
    assert await ended == 1
    assert not calling.done()
    calling.cancel()
    assert set(db.on_disk().rows("network")) == {after.ref}
    assert FileRedoLog(db.folder, BOOT).recover().requests == {"again": 1}


async def test_a_checkpoint_that_runs_makes_the_room_that_a_full_log_needs(db: Running) -> None:
    await db.transact(rows.network())
    running = asyncio.create_task(db.checkpoints.write())
    await asyncio.sleep(0)
    calls = [asyncio.create_task(db.transact(rows.network())) for _ in range(3)]
    await asyncio.sleep(0)
    db.gate.full = True
    await asyncio.gather(*calls)
    assert await running
    assert len(db.on_disk().rows("network")) == 4


async def test_a_log_may_number_every_change_of_a_commit(db: Running) -> None:
    db.gate.step = 1
    first = await db.transact(rows.network(), rows.network(), rows.network())
    second = await db.transact(rows.network(), rows.network())
    assert second == first + 2
    assert db.published[-1].previous == first


async def test_people_hear_once_that_the_log_fails_and_once_that_it_is_well(db: Running) -> None:
    db.gate.broken = "device gone"
    for _ in range(3):
        with pytest.raises(ApiError, match="device gone"):
            await db.transact(rows.network())
    await db.committer.try_again()
    assert db.health == [(False, "device gone")]
    db.gate.broken = ""
    await db.committer.try_again()
    assert db.health == [(False, "device gone"), (True, "")]
    assert db.committer.healthy


async def test_by_the_other_policy_commits_go_on_without_the_log_and_it_gets_all_of_them_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Running(tmp_path, "continue")
    try:
        monkeypatch.setattr(health, "FIRST_PAUSE", 0.05)
        before, during, after = (rows.network(name) for name in ("before", "during", "after"))
        await db.transact(before)
        db.gate.broken = "device gone"
        await db.transact(during)
        assert set(db.store.rows("network")) == {before.ref, during.ref}
        assert not db.committer.healthy
        assert set(db.on_disk().rows("network")) == {before.ref}
        db.gate.broken = ""
        while not db.committer.healthy:
            await asyncio.sleep(0.02)
            await db.committer.try_again()
        await db.transact(after)
        assert set(db.on_disk().rows("network")) == {before.ref, during.ref, after.ref}
    finally:
        await db.close()


async def test_a_checkpoint_whose_commits_are_taken_back_does_not_count(db: Running) -> None:
    kept = rows.network("kept")
    await db.transact(kept)
    db.gate.open.clear()
    waiting = asyncio.create_task(db.transact(rows.network("first")))
    await asyncio.sleep(0.02)
    lost = asyncio.create_task(db.transact(rows.network("lost")))
    writing = asyncio.create_task(db.checkpoints.write())
    await asyncio.sleep(0)
    db.gate.broken = "disk full"
    db.gate.open.set()
    for call in (waiting, lost):
        with pytest.raises(ApiError, match="disk full"):
            await call
    db.gate.broken = ""
    await writing
    assert set(db.on_disk().rows("network")) == {kept.ref}


async def test_people_hear_that_the_log_does_not_answer_and_commits_wait(
    db: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "SLOW", 0.02)
    db.gate.open.clear()
    call = asyncio.create_task(db.transact(rows.network()))
    await db.told.wait()
    assert not call.done()
    db.gate.open.set()
    await call
    assert [healthy for healthy, _ in db.health] == [False, True]
