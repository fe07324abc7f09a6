"""What a redo log is to the database: commits are appended before they are answered, and come back at the next start.

A log is used by one thread at a time, that of the committer. Its checkpoints are written by a forked child meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import orjson

from services.db.redo.frames import encode
from shared.contracts.db import RowChange, SnapshotRow


class LogRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One commit. `request`: id of the bus request that asked for it, so that a repeated one is not applied twice.

    `durable`: some of it is of persistent fields. What is not counts only within the boot of the machine that wrote it.
    """

    generation: int
    term: int
    changes: list[RowChange] = []
    request: str = ""
    durable: bool = True
    task: str = ""
    session: str = ""
    call: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A commit on its way into a log. `previous`: the generation it follows; `frame`: the record as our files have
    it.
    """

    record: LogRecord
    previous: int
    frame: bytes


def entry(record: LogRecord, previous: int) -> Entry:
    return Entry(record, previous, encode(orjson.dumps(record, default=msgspec.to_builtins)))


class CheckpointHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All rows at one generation. `requests`: ids of finished requests, with their generations. `boot`: of the
    machine.
    """

    generation: int
    term: int
    rows: int
    boot: str = ""
    requests: dict[str, int] = {}
    version: int = 1


class RedoLogError(Exception):
    """The log cannot be read or written; the text says which one and why."""


class LogFull(RedoLogError):
    """There is no place for these commits before a checkpoint: no room, or nothing that they could follow."""


class Uncertain(RedoLogError):
    """Nobody can say whether these commits count: whoever starts anew finds out. So they cannot be refused either."""


class LogLost(RedoLogError):
    """What was acknowledged is not in the log any more. Another log may have it: then this one can be begun all the
    same, and a checkpoint brings it what it lacks.

    `since`: term and generation at which it was begun without rows, where no commit has been acknowledged since: who
    has all that was committed by then lacks nothing. None: more may be lost.
    """

    def __init__(self, text: str, since: tuple[int, int] | None = None) -> None:
        super().__init__(text)
        self.since = since


@dataclass(slots=True)
class Recovered:
    """What a log holds: rows at its newest checkpoint, and the commits after it, oldest first.

    `generation`, `term`: of the last commit, also one that is not in `records` because it no longer counts.
    `restarts`: generations at which a new boot of the machine began, among the records: what is volatile ends there.
    `torn`: bytes of a commit that never was one. `journal`: of a local log beside another (`segments.SegmentHeader`).
    """

    generation: int = 0
    term: int = 0
    boot: str = ""
    rows: list[SnapshotRow] = field(default_factory=list)
    records: list[LogRecord] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    torn: int = 0
    journal: bool = False


class Checkpoint(Protocol):
    """All rows, written anew so that older commits can be dropped. Either it counts after `finish`, or it never was."""

    def begin(self) -> None:
        """Between two appends: every commit appended before is in it; of those after, its rows may have some.

        Left out where nothing is committed before `finish`, because other rows take the place of the present ones.
        """
        ...

    def hold(self, header: CheckpointHeader) -> None:
        """What it will hold, said right before the child is forked: a note, nothing is done yet."""
        ...

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        """In the forked child, while commits go on being appended; durable when it returns. It does not count yet."""
        ...

    def finish(self) -> None:
        """Between two appends: it counts. Raises `RedoLogError`: then it is not known to, and must be abandoned."""
        ...

    def abandon(self) -> None:
        """It does not count and leaves nothing. Raises `RedoLogError` when it may count after all."""
        ...

    def tidy(self) -> None:
        """After `finish`, beside the appends: removes what it replaces."""
        ...


class RedoLog(Protocol):
    """`kind`: as the option names it.

    `bytes`, `syncs`: appended and synced since the start. `backlog`: bytes that a recovery would have to replay;
    `roomy`: false when a checkpoint should be made soon.
    """

    kind: str

    @property
    def bytes(self) -> int: ...

    @property
    def syncs(self) -> int: ...

    @property
    def backlog(self) -> int: ...

    @property
    def roomy(self) -> bool: ...

    def generations(self, changes: Sequence[RowChange]) -> int:
        """How many numbers a commit of these changes takes; the last of them is its generation. 1, unless the log's
        format numbers what a commit is made of.
        """
        ...

    def recover(self) -> Recovered:
        """Reads everything. Raises `RedoLogError` for damage that is no torn end: somebody has to look."""
        ...

    def begin(self, generation: int, term: int) -> None:
        """Makes the log ready to be appended to after `generation`: at the start of a term, and again after a failure.

        Nothing half written is in the way of later commits then. Raises `RedoLogError`.
        """
        ...

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        """All or none. With `sync`, what is durable of them is on stable storage when it returns; without, it does not
        block. Raises `RedoLogError`: nothing of them counts; `LogFull`: a checkpoint makes room; `Uncertain`.
        """
        ...

    def checkpoint(self) -> Checkpoint:
        """A new one; nothing happens yet."""
        ...

    def close(self) -> None: ...


def bodies(rows: Iterable[SnapshotRow], count: int = 500) -> Iterator[bytes]:
    """The rows as JSON, some hundred in each part."""
    batch: list[dict[str, object]] = []
    for row in rows:
        item = {"cls": row.cls, "ref": row.ref, "created": row.created, "modified": row.modified, "fields": row.fields}
        if row.written:
            item["written"] = row.written
        batch.append(item)
        if len(batch) == count:
            yield orjson.dumps(batch)
            batch.clear()
    if batch:
        yield orjson.dumps(batch)
