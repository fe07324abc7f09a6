"""A small primary on one redo log: it commits as the committer does, and knows what a start has to find."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.db.disk import Disk
from services.db.recovery import restore
from services.db.redo.interface import (
    Checkpoint,
    CheckpointHeader,
    Entry,
    LogFull,
    LogRecord,
    RedoLogError,
    Uncertain,
    entry,
)
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted, RowModified
from tests.db.redo.backends import Backend
from tests.db.soundness import assert_sound
from tests.support.faulty_disk import CrashingDisk
from tests.support.lossy_disk import LossyDisk, lose

LAST = "OpaqueRef:last"
TASK = "OpaqueRef:task"


@dataclass
class Known:
    """What a start has to find. `acknowledged`: numbers of the commits that were; `doubtful`: of the batch in flight.

    `last`: what the field holds that each of them writes. `volatile`: the last acknowledged state of a row that may be
    lost with the machine's power. `generation`, `term`: as far as they were used.
    """

    acknowledged: list[int] = field(default_factory=list)
    last: int = 0
    doubtful: list[int] = field(default_factory=list)
    volatile: int = 0
    volatile_doubtful: int = 0
    generation: int = 0
    term: int = 0
    requests: dict[str, int] = field(default_factory=dict)


class Ended(Exception):
    """The process ends by itself, and is started anew."""


class Machine:
    """A folder on a lossy disk, and a redo log in it that is opened and crashed again and again."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend = backend
        self.folder = folder / "db"
        self.image = folder / "image"
        self.boots = 0
        self.known = Known()
        self.folder.mkdir()

    @property
    def boot(self) -> str:
        return f"boot {self.boots}"

    def disk(self) -> LossyDisk:
        return LossyDisk(self.folder, self.image)

    def power_cut(self, rng: random.Random, *, torn: bool) -> None:
        lose(self.image, rng, torn=torn)
        self.boots += 1

    def start(self, disk: Disk | None = None) -> Primary:
        return Primary(self, disk or self.disk())


class Primary:
    """Raises `RedoLogError` when the log cannot be opened."""

    def __init__(self, machine: Machine, disk: Disk) -> None:
        self.machine = machine
        self.known = machine.known
        self.disk = disk
        self.log = machine.backend.open(machine.folder, disk, machine.boot)
        self.found = self.log.recover()
        self.store = restore(self.found, machine.boot)
        self.store.term += 1
        assert self.store.term > self.known.term, "a term is used twice"
        self.healthy = True
        self.checkpoints_for_room = 0
        self.why = ""
        try:
            self.log.begin(self.store.generation, self.store.term)
        except RedoLogError:
            self.log.close()
            raise
        self.known.term = max(self.known.term, self.store.term)

    # ---- what it does

    def commit(self, *numbers: int) -> bool:
        """One batch with a commit for each number, as of one fdatasync: a new row, and a field that each one writes.

        Returns whether it was acknowledged.
        """
        entries = [self._entry(number) for number in numbers]
        self.known.doubtful = list(numbers)
        try:
            self._keep(entries, sync=True)
        except Uncertain:
            raise  # the process ends, and the commits are in doubt
        except RedoLogError as error:
            self.why = str(error)
            self._refused(list(numbers))
            return False
        self.known.acknowledged += numbers
        self.known.requests.update(
            {f"request {number}": item.record.generation for number, item in zip(numbers, entries, strict=True)}
        )
        self.known.doubtful, self.known.last = [], numbers[-1]
        self._used()
        return True

    def overwrite(self, number: int) -> None:
        """A commit that adds nothing to the rows. Raises `RedoLogError`."""
        fields = {"name_label": str(number), "name_description": "y" * 1000}
        self._keep([self._applied([RowModified(cls="network", ref=LAST, fields=fields)], durable=True)], sync=True)
        self.known.last = number
        self._used()

    def commit_volatile(self, number: int) -> bool:
        """A row that may be lost with the machine's power; nothing is synced."""
        before = TASK in self.store.rows("task")
        value = {"name_label": str(number)} if before else _with_uuid(10**9, {"name_label": str(number)})
        change: RowChange = (
            RowModified(cls="task", ref=TASK, fields=value)
            if before
            else RowCreated(cls="task", ref=TASK, fields=value)
        )
        made = self._applied([change], durable=False)
        self.known.volatile_doubtful = number
        try:
            self._keep([made], sync=False)
        except Uncertain:
            raise
        except RedoLogError:
            self._refused([])
            return False
        self.known.volatile, self.known.volatile_doubtful = number, 0
        self._used()
        return True

    def checkpoint(self, *meanwhile: int) -> bool:
        """One, with a commit for each number while it is written. Returns whether it counts."""
        made = self.log.checkpoint()
        try:
            made.begin()
        except RedoLogError:
            return False
        made.hold(self.header())
        rows = list(self.store.snapshot())
        refused = not all([self.commit(number) for number in meanwhile])
        try:
            made.write(rows)
        except RedoLogError:
            refused = True
        return (not refused and self._finished(made)) or self._abandoned(made)

    def close(self) -> None:
        self.log.close()

    def crash(self) -> None:
        """The process is gone: its descriptors are closed, and nothing else happens."""
        with suppress(OSError):
            self.log.close()
        if isinstance(self.disk, CrashingDisk):
            self.disk.release()

    # ---- how

    def _finished(self, made: Checkpoint) -> bool:
        try:
            made.finish()
        except RedoLogError:
            return False
        made.tidy()
        return True

    def _abandoned(self, made: Checkpoint) -> bool:
        """False. Raises `Ended` where the process would end itself: the checkpoint may count after all."""
        try:
            made.abandon()
        except RedoLogError as error:
            raise Ended(str(error)) from error
        return False

    def header(self) -> CheckpointHeader:
        store = self.store
        return CheckpointHeader(
            generation=store.generation,
            term=store.term,
            rows=store.count(),
            boot=self.machine.boot,
            requests=dict(self.known.requests),
        )

    def _entry(self, number: int) -> Entry:
        fields = {"name_label": str(number), "name_description": "x" * (number * 37 % 600)}
        changes: list[RowChange] = [
            RowCreated(cls="network", ref=f"OpaqueRef:{number}", fields=_with_uuid(number, fields))
        ]
        if LAST in self.store.rows("network"):
            changes.append(RowModified(cls="network", ref=LAST, fields=fields))
        else:
            changes.append(RowCreated(cls="network", ref=LAST, fields=_with_uuid(0, fields)))
        return self._applied(changes, durable=True, request=f"request {number}")

    def _applied(self, changes: list[RowChange], **told: Any) -> Entry:
        store = self.store
        generation = store.generation + self.log.generations(changes)
        record = LogRecord(generation=generation, term=store.term, changes=changes, **told)
        made = entry(record, store.generation)
        store.apply(Delta(term=store.term, generation=generation, previous=store.generation, changes=changes))
        return made

    def _keep(self, entries: list[Entry], sync: bool) -> None:
        """As the committer does: one that has failed is begun anew first, one that is full gets a checkpoint."""
        if not self.healthy:
            self.log.begin(self.known.generation, self.store.term)
            self.healthy = True
        try:
            self.log.append(entries, sync)
        except LogFull:
            self.checkpoints_for_room += 1
            # Its rows have what is being committed: readers pass over it when it comes again.
            if not self.checkpoint():
                raise RedoLogError("no room, and no checkpoint") from None
            self.log.append(entries, sync)

    def _refused(self, numbers: list[int]) -> None:
        """Taken back: the rows are as before, the generations are not used again."""
        self.healthy = False
        self.known.doubtful, self.known.volatile_doubtful = [], 0
        store = self.store
        changes: list[RowChange] = [RowDeleted(cls="network", ref=f"OpaqueRef:{number}") for number in numbers]
        if numbers:
            changes += _as_acknowledged(self.known)
        elif TASK in store.rows("task"):
            changes += _task_as_acknowledged(self.known)
        generation = store.generation
        store.apply(Delta(term=store.term, generation=generation, previous=generation, changes=changes))
        store.generation += 1
        self._used()

    def _used(self) -> None:
        self.known.generation = self.store.generation


def _with_uuid(number: int, fields: dict[str, str]) -> dict[str, str]:
    return {"uuid": f"00000000-0000-4000-8000-{number:012d}", **fields}


def _as_acknowledged(known: Known) -> list[RowChange]:
    if not known.last:
        return [RowDeleted(cls="network", ref=LAST)]
    return [RowModified(cls="network", ref=LAST, fields={"name_label": str(known.last)})]


def _task_as_acknowledged(known: Known) -> list[RowChange]:
    if not known.volatile:
        return [RowDeleted(cls="task", ref=TASK)]
    return [RowModified(cls="task", ref=TASK, fields={"name_label": str(known.volatile)})]


def judge(primary: Primary, *, volatile: bool) -> None:
    """After a start: what was acknowledged is there, what was refused is not, of a batch in flight the first or none.

    `volatile`: whether volatile rows have to be there too (the machine kept its power). Fails with what is wrong.
    """
    known, store = primary.known, primary.store
    there = sorted(int(row["name_label"]) for ref, row in store.rows("network").items() if ref != LAST)
    expected = sorted(known.acknowledged)
    begun = [sorted([*known.acknowledged, *known.doubtful[:count]]) for count in range(len(known.doubtful) + 1)]
    assert there in begun, f"commits {there} are there, {expected} were acknowledged, {known.doubtful} under way"
    if appeared := known.doubtful[: begun.index(there)]:
        known.acknowledged += appeared
        known.last = appeared[-1]
    known.doubtful = []
    last = store.row("network", LAST)
    assert (last["name_label"] if last else None) == (str(known.last) if known.last else None)
    assert store.generation >= known.generation, f"generation {store.generation} after {known.generation}"
    task = store.row("task", TASK)
    if volatile:
        value = int(task["name_label"]) if task else 0
        assert value in (known.volatile, known.volatile_doubtful or known.volatile), "a volatile row is not as it was"
        known.volatile = value
    else:
        assert task is None, "a volatile row outlived the machine"
        known.volatile = 0
    known.volatile_doubtful = 0
    known.generation = store.generation
    for request, generation in known.requests.items():
        assert primary.found.requests.get(request) == generation, f"{request} would be applied again"
    assert_sound(store)
