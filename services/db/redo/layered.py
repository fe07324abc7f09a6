"""Two logs as one: another back end makes commits durable, a journal on the local disk keeps everything else.

The journal is the `file` log without its syncs. What is in it outlives the process, so a killed database process logs
nobody out and forgets no lock, whichever back end there is. It does not outlive the machine, and it counts only within
the boot that wrote it: afterwards the back end alone says what was committed. Beside no back end at all (`off`) it is
the best there is, up to where the machine's loss has torn it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from services.db.redo.file import FileRedoLog
from services.db.redo.interface import (
    Checkpoint,
    CheckpointHeader,
    Entry,
    LogFull,
    LogLost,
    LogRecord,
    Recovered,
    RedoLog,
    RedoLogError,
    Uncertain,
    entry,
)
from services.db.redo.off import NoRedoLog
from shared.contracts.db import RowChange, SnapshotRow

log = logging.getLogger("db.redo_log")


class LayeredRedoLog:
    """`journal` was made with `synced=False`, unless there is an `idle`.

    `idle`: whether the back end is not for this process to write to: it belongs to the primary, wherever that is. What
    is committed then, by others, is durable in the journal.
    """

    def __init__(self, journal: FileRedoLog, durable: RedoLog, idle: Callable[[], bool] = lambda: False) -> None:
        self.kind = durable.kind
        self._idle = idle
        self._journal = journal
        self._durable = durable
        self._follows = 0
        """The generation that the back end ends with."""
        self._missing: list[LogRecord] = []
        """Commits that the journal has and the back end not: the process was killed between the two."""

    @property
    def bytes(self) -> int:
        return self._durable.bytes

    @property
    def syncs(self) -> int:
        return self._durable.syncs

    @property
    def backlog(self) -> int:
        return max(self._durable.backlog, self._journal.backlog)

    @property
    def roomy(self) -> bool:
        if self._idle():
            return self._journal.roomy
        return not self._missing and self._durable.roomy and self._journal.roomy

    def generations(self, changes: Sequence[RowChange]) -> int:
        return self._durable.generations(changes)

    def recover(self) -> Recovered:
        """The journal's, where it is of this boot and not behind; else the back end's, and the journal then holds that.

        Raises `LogLost` when the back end has lost commits that the journal cannot make up for.
        """
        lost: LogLost | None = None
        try:
            durable = self._durable.recover()
        except LogLost as error:
            durable, lost = Recovered(), error
        journal = self._journal_says()
        if journal is not None and self._journal_counts(journal, durable, lost):
            if lost is not None:
                log.error("%s: the local journal has them", lost)
            elif _age(durable) != (0, 0):
                self._follows = durable.generation
                self._missing = [item for item in journal.records if item.durable and item.generation > self._follows]
            return journal
        if lost is not None:
            raise lost
        self._journal.become(durable)
        return durable

    def _journal_says(self) -> Recovered | None:
        """None where it cannot be trusted."""
        if self._journal.doubtful:
            log.error("the local journal is not whole: it is passed over")
            return None
        try:
            return self._journal.recover()
        except RedoLogError as error:
            log.error("the local journal is passed over: %s", error)
            return None

    def _journal_counts(self, journal: Recovered, durable: Recovered, lost: LogLost | None) -> bool:
        if self.kind == NoRedoLog.kind:
            return True
        if lost is not None and lost.since is not None and self._journal.synced and _age(journal) >= lost.since:
            return True
        if lost is None and _age(durable) == (0, 0):
            return True  # a back end that is new: what was committed before is in the journal, if anywhere
        if journal.boot != self._journal.boot:
            return False
        if _age(journal) < _newest(durable):
            log.error("the local journal ends at %d, before the %s log", journal.generation, self.kind)
            return False
        return True

    def begin(self, generation: int, term: int) -> None:
        """A back end that is taken over comes first: if it has what is not here, nothing was begun."""
        takes_over = self._idle()
        if not takes_over:
            self._journal.begin(generation, term)
        self._begin_durable(generation, term)
        if takes_over:
            self._journal.begin(generation, term)

    def _begin_durable(self, generation: int, term: int) -> None:
        if self._missing:
            self._durable.begin(self._follows, term)  # until it has them, that is where it ends
            if self._idle():
                return
            try:
                self._complete()
            except LogFull:
                return  # the next commit asks for a checkpoint
        self._durable.begin(generation, term)

    def _complete(self) -> None:
        """What follows may depend on them, and whoever asks again for one of them hears that it was committed."""
        missing = [entry(item, item.generation - self._durable.generations(item.changes)) for item in self._missing]
        self._durable.append(missing, sync=True)
        log.warning("the %s log lacked %d commits that the local journal had", self.kind, len(missing))
        self._missing = []

    def counts(self) -> None:
        """A checkpoint does: the back end lacks nothing."""
        if not self._idle():
            self._missing = []

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        """Local first: what the back end has then counts for whoever starts here again, and for whoever starts
        elsewhere.
        """
        if self._idle():
            self._journal.append(entries, sync)
            return
        if sync and self._missing:
            raise LogFull(f"the {self.kind} log lacks commits that the local journal has")
        self._journal.append(entries, sync=False)
        if not sync:
            return
        try:
            self._durable.append([item for item in entries if item.record.durable], sync=True)
        except Uncertain:
            raise  # the journal has it: the next start brings the back end what it lacks
        except RedoLogError:
            self._journal.retract()
            raise

    def checkpoint(self) -> LayeredCheckpoint:
        return LayeredCheckpoint(self._journal.checkpoint(), self._durable.checkpoint(), self.counts)

    def close(self) -> None:
        self._durable.close()
        self._journal.close()


def _age(found: Recovered) -> tuple[int, int]:
    return found.term, found.generation


def _newest(found: Recovered) -> tuple[int, int]:
    """Of the last commit: a term that was begun, and nothing in it, is nothing that somebody could lack."""
    return (found.records[-1].term, found.records[-1].generation) if found.records else _age(found)


class LayeredCheckpoint:
    """It counts when the back end's counts; the journal's follows."""

    def __init__(self, journal: Checkpoint, durable: Checkpoint, counts: Callable[[], None]) -> None:
        self._journal = journal
        self._durable = durable
        self._counts = counts
        self._journal_counts = True

    def begin(self) -> None:
        self._durable.begin()
        self._journal.begin()

    def hold(self, header: CheckpointHeader) -> None:
        self._durable.hold(header)
        self._journal.hold(header)

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        kept = list(rows)
        self._durable.write(kept)
        self._journal.write(kept)

    def finish(self) -> None:
        self._durable.finish()
        self._counts()
        try:
            self._journal.finish()
        except RedoLogError as error:
            log.error("the local journal keeps its older segments: %s", error)
            self._journal.abandon()
            self._journal_counts = False

    def abandon(self) -> None:
        self._journal.abandon()
        self._durable.abandon()

    def tidy(self) -> None:
        self._durable.tidy()
        if self._journal_counts:
            self._journal.tidy()
