"""The local log, and beside it a redo log in the original's layout on a disk of an SR (`pool.enable_redo_log`).

The local log is complete and synced, as without the disk: what it has counts. The disk is for the loss of the host: a
commit is answered when it is on both. A disk that fails is told of and left behind, so no change is refused because an
SR does not answer; it is used again once all rows have been written to it anew. Where a start, or whoever becomes
primary, finds more on the disk than in its local log, the disk's counts.

    idle      it is not touched: another process is primary, or this one has not begun
    broken    it failed; tried again after a pause
    empty     it can be written, and lacks rows: all of them are written to it next
    filling   that is being done; commits made meanwhile follow
    current   it has all that is acknowledged
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

from services.db.health import Pauses
from services.db.redo.block.checkpoint import BlockCheckpoint
from services.db.redo.block.log import Batch, BlockRedoLog
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import (
    Checkpoint,
    CheckpointHeader,
    Entry,
    LogFull,
    LogLost,
    Recovered,
    RedoLogError,
)
from shared.contracts.db import RowChange, RowCreated, SnapshotRow
from shared.redo_blocks import deltas

log = logging.getLogger("db.redo_log")

State = Literal["none", "idle", "broken", "empty", "filling", "current"]

UNWRITTEN: Final = "not all rows could be written to it: too many, an error, or no time (see the log of the database)"


class MirroredRedoLog:
    """`open_copy` makes the log of a path, which writes to it, or only looks. `reads`: whether a start looks there.

    `primary`: whether this process is, or is about to be, and may write. `on_behind` ends the process: a start takes
    what is on the disk. `news` gets (healthy, why), in the thread of the log.
    """

    def __init__(
        self,
        local: FileRedoLog,
        open_copy: Callable[[Path, bool], BlockRedoLog],
        reads: Callable[[], bool],
        primary: Callable[[], bool],
        on_behind: Callable[[str], None],
        news: Callable[[bool, str], None],
    ) -> None:
        self.kind = local.kind
        self.path: Path | None = None
        self.state: State = "none"
        self.why = ""
        self.read_from = ""
        """Path of the disk that a start has taken its rows from; "": its local log."""
        self._local = local
        self._open_copy = open_copy
        self._reads = reads
        self._primary = primary
        self._on_behind = on_behind
        self._news = news
        self._copy: BlockRedoLog | None = None
        """While this process writes to it."""
        self._armed = self._reigns = False
        """The start is over; a term was begun since."""
        self._fresh = False
        self._told_broken = False
        self._pauses = Pauses()
        self._last = self._last_durable = 0
        """Generation of the newest commit, and of the newest that outlives the machine."""
        self._term = 0
        self._pool = ""
        """Uuid of the pool that a start has found; "" if there was none, or other rows have taken their place since."""
        self._replaced = False
        """The disk lacks what others than its commits have changed, and nothing was begun since."""
        self._full = False
        """It was full already when it was written anew."""
        self._filling: CopyCheckpoint | None = None

    @property
    def bytes(self) -> int:
        return self._local.bytes

    @property
    def syncs(self) -> int:
        return self._local.syncs + (self._copy.syncs if self._copy is not None else 0)

    @property
    def backlog(self) -> int:
        return self._local.backlog

    @property
    def roomy(self) -> bool:
        return self._local.roomy

    @property
    def wants_fill(self) -> bool:
        """Whether all rows should be written to the disk soon."""
        if self.state == "current":
            return self._copy is not None and not self._copy.roomy
        return self.state == "empty"

    @property
    def full(self) -> bool:
        """Whether what could not be appended waits until all rows have been written to the disk."""
        return self._full

    @property
    def wants_disk(self) -> bool:
        """Whether it should be taken up: by `look`, then `take_up`."""
        return self.path is not None and self._copy is None and self._reigns and self._writes and self._pauses.over

    @property
    def wants_rest(self) -> bool:
        """Whether it still holds the disk, though another process is primary."""
        return self._copy is not None and not self._primary()

    @property
    def _writes(self) -> bool:
        return self._armed and self._primary()

    def generations(self, changes: Sequence[RowChange]) -> int:
        """Those of the disk's layout, also while it is broken: it comes back."""
        return self._local.generations(changes) if self.path is None else deltas.generations(changes)

    # ---- which disk

    def use(self, path: Path | None, *, fresh: bool = False) -> None:
        """From now on this disk, or none. In the thread of the log, between two appends.

        `fresh`: whatever redo log is there is nothing to us.
        """
        self._let_go("none" if path is None else "idle")
        self.path, self.why, self._fresh, self._told_broken = path, "", fresh, False
        self._pauses.succeeded()

    def arm(self) -> None:
        """The start is over: what is begun from now on is begun by who knows what it is."""
        self._armed = True

    def rest(self) -> None:
        """Another process is primary. The disk is closed, and unlocked."""
        if self.path is not None:
            self._let_go("idle")
            self._told_broken = False

    def _let_go(self, state: State) -> None:
        self._filling, self._full, self.state = None, False, state
        copy, self._copy = self._copy, None
        if copy is None:
            return
        try:
            copy.close()
        except OSError as error:
            log.error("the redo log %s did not close well: %s", self.path, error.strerror)

    # ---- reading

    def recover(self) -> Recovered:
        """The local log's, unless the disk has more. Raises `RedoLogError`."""
        whole = not self._local.doubtful
        found = self._local.recover() if whole else Recovered()
        if self.path is not None and self._reads():
            other = self._on_disk(self.path, needed=not found.rows and not found.records)
            if _strangers(found_pool := _pool_of(found), _pool_of(other)):
                log.critical("the redo log %s is of another pool than %s: it is not used", self.path, found_pool)
            elif other.generation > found.generation:
                log.critical(
                    "the redo log %s goes up to generation %d of term %d, the local one up to %d of %d: it is used",
                    *(self.path, other.generation, other.term, found.generation, found.term),
                )
                self._local.become(other)
                self.read_from, found, whole = str(self.path), other, True
        if not whole:
            raise RedoLogError("the local log is not whole, and the disk that it was being written from is not there")
        self._pool = _pool_of(found)
        durable = [record.generation for record in found.records if record.durable]
        self._term, self._last = found.term, found.generation
        self._last_durable = max(durable, default=found.generation)
        return found

    def _on_disk(self, path: Path, *, needed: bool) -> Recovered:
        """Without a lock: who is to write to it is not decided yet. Raises `RedoLogError` only where it is `needed`."""
        copy = self._open_copy(path, False)
        try:
            return copy.look()
        except RedoLogError as error:
            if needed:
                raise
            log.error("%s: this start uses the local log", error)
            return Recovered()
        finally:
            copy.close()

    # ---- writing

    def begin(self, generation: int, term: int) -> None:
        """The local log decides. A disk that has what is not here ends the process before anything is begun."""
        found: Recovered | None = None
        if self.path is not None and self.state == "idle" and self._writes:
            try:
                self._copy, found = self.look()
            except RedoLogError as error:
                self._broke(str(error))
            else:
                self._refuse_to_be_behind(found)
        if self._armed and term == self._term and generation > self._last:
            self._lacks_rows()  # commits went on without any log, by the policy `continue`
        if self._replaced:
            self._last = self._last_durable = generation
        self._local.begin(generation, term)
        self._term, self._last = term, max(self._last, generation)
        self._reigns = self._writes
        if self.wants_rest:
            self.rest()
        if self._copy is not None:
            self._begin_copy(self._copy, generation, found)
        self._replaced = False

    def look(self) -> tuple[BlockRedoLog, Recovered]:
        """The disk, locked, and what it holds. In any thread, since it may take as long as the disk's patience.

        Raises `RedoLogError`.
        """
        if self.path is None:
            raise RedoLogError("no disk is used any more")
        copy = self._open_copy(self.path, True)
        try:
            found = copy.recover()
            if not self._fresh and _strangers(self._pool, _pool_of(found)):
                raise RedoLogError(f"the redo log {self.path} is of another pool")
            return copy, found
        except LogLost as lost:
            log.error("%s: all rows are written to it anew", lost)
            return copy, Recovered()
        except BaseException:
            copy.close()
            raise

    def take_up(self, copy: BlockRedoLog, found: Recovered) -> None:
        """What `look` has found, between two appends."""
        if copy.device.path != self.path or self._copy is not None or not self._writes:
            copy.close()
            return
        self._copy = copy
        self._refuse_to_be_behind(found)
        self._begin_copy(copy, self._last, found)

    def failed(self, why: str) -> None:
        """The disk is not to be had; unless it has been taken up meanwhile."""
        if self.path is not None and self._copy is None and self._writes:
            self._broke(why)

    def _refuse_to_be_behind(self, found: Recovered) -> None:
        """Raises `RedoLogError` if `on_behind` returns."""
        if found.generation > self._last and not self._fresh:
            why = (
                f"the redo log {self.path} goes up to generation {found.generation} of term {found.term}, and this "
                f"process up to {self._last} of {self._term}: starting anew"
            )
            self._let_go("idle")
            self._on_behind(why)
            raise RedoLogError(why)

    def _begin_copy(self, copy: BlockRedoLog, generation: int, found: Recovered | None) -> None:
        """`found`: what it holds, where it has just been taken up."""
        lacks = found is not None and (self._fresh or found.generation < self._last_durable)
        if lacks or self._replaced:
            copy.replaced()
        try:
            copy.begin(generation, self._term)
        except RedoLogError as error:
            self._broke(str(error))
            return
        if copy.follows:
            self._is_current()
        elif self.state != "filling":
            self.state = "empty"

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        """Raises `LogFull` where the disk has no room before all rows are written to it anew: nothing is written then.
        And what the local log raises.
        """
        durable = [entry for entry in entries if entry.record.durable]
        batch = self._batch(durable)
        self._local.append(entries, sync)
        if durable and self.wants_rest:
            self.rest()
        if durable and self._filling is not None:
            self._filling.follow(durable)
        elif batch is not None and self._copy is not None:
            self._write(self._copy, batch)
        self._last = entries[-1].record.generation
        if durable:
            self._last_durable = durable[-1].record.generation

    def _batch(self, durable: Sequence[Entry]) -> Batch | None:
        """For the disk; None where it gets none of them. Raises `LogFull`, once."""
        if not durable or self._copy is None or self.state != "current":
            return None
        try:
            return self._copy.batch(durable)
        except LogFull as full:
            if not self._full:
                self._full = True
                raise
            self._broke(str(full))
        except RedoLogError as error:
            self._broke(str(error))
        return None

    def _write(self, copy: BlockRedoLog, batch: Batch) -> None:
        try:
            copy.write(batch)
        except RedoLogError as error:
            self._broke(str(error))
        else:
            self._full = False

    # ---- checkpoints

    def checkpoint(self) -> Checkpoint:
        """Of the local log."""
        return _LocalCheckpoint(self._local.checkpoint(), self._was_replaced)

    def _was_replaced(self) -> None:
        self._pool = ""
        self._lacks_rows()

    def _lacks_rows(self) -> None:
        self._replaced, self._filling = True, None
        if self._copy is not None and self.state in ("filling", "current"):
            self.state = "empty"

    def copy_checkpoint(self) -> CopyCheckpoint:
        """Of the disk. Raises `RedoLogError`."""
        inner = None if self._copy is None else self._copy.checkpoint()
        if self._copy is None or not isinstance(inner, BlockCheckpoint):
            raise RedoLogError(f"the redo log {self.path} cannot be written: {self.why or self.state}")
        return CopyCheckpoint(self, self._copy, inner)

    def fill_begins(self, fill: CopyCheckpoint) -> None:
        """Raises `RedoLogError`."""
        if self._copy is not fill.copy or self.state not in ("empty", "current"):
            raise RedoLogError(f"the redo log {self.path} cannot be written: {self.why or self.state}")
        fill.goes_on = self.state == "current"
        if not fill.goes_on:
            self.state, self._filling = "filling", fill

    def still_wants(self, fill: CopyCheckpoint) -> bool:
        """False: it failed meanwhile, or other rows have taken the place of all."""
        if self._copy is not fill.copy:
            return False
        return self.state == "current" if fill.goes_on else self._filling is fill

    def fill_ends(self, fill: CopyCheckpoint, why: str) -> None:
        """`why`: "" where it counts. One that nobody wants any more says nothing of the disk."""
        if not self.still_wants(fill):
            return
        self._filling = None
        if why:
            self._broke(why)
        else:
            self._is_current()

    # ---- health

    def _is_current(self) -> None:
        self.state, self.why, self._fresh = "current", "", False
        self._pauses.succeeded()
        if self._told_broken:
            self._told_broken = False
            log.warning("the redo log %s has all rows again", self.path)
            self._news(True, "")

    def _broke(self, why: str) -> None:
        self._let_go("broken")
        self.why = why
        self._pauses.failed()
        if not self._told_broken:
            self._told_broken = True
            log.critical("%s: changes are in the local log alone until it can be written again", why)
            self._news(False, why)

    def close(self) -> None:
        self._let_go(self.state)
        self._local.close()


def _pool_of(found: Recovered) -> str:
    """Uuid; "" where it is not told."""
    told = (row.fields for row in found.rows if row.cls == "pool")
    made = (
        change.fields
        for record in found.records
        for change in record.changes
        if isinstance(change, RowCreated) and change.cls == "pool"
    )
    return next((str(fields["uuid"]) for fields in (*told, *made) if "uuid" in fields), "")


def _strangers(pool: str, other: str) -> bool:
    """Two pools, as far as it is known."""
    return bool(pool and other and pool != other)


class _LocalCheckpoint:
    """`replaced` hears when other rows have taken the place of all: nothing was begun then."""

    def __init__(self, inner: Checkpoint, replaced: Callable[[], None]) -> None:
        self._inner = inner
        self._replaced = replaced
        self._begun = False

    def begin(self) -> None:
        self._inner.begin()
        self._begun = True

    def hold(self, header: CheckpointHeader) -> None:
        self._inner.hold(header)

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        self._inner.write(rows)

    def finish(self) -> None:
        self._inner.finish()
        if not self._begun:
            self._replaced()

    def abandon(self) -> None:
        self._inner.abandon()

    def tidy(self) -> None:
        self._inner.tidy()


class CopyCheckpoint:
    """All rows to the disk."""

    def __init__(self, redo_log: MirroredRedoLog, copy: BlockRedoLog, inner: BlockCheckpoint) -> None:
        self._log = redo_log
        self.copy = copy
        self._inner = inner
        self.goes_on = False
        """Whether commits made meanwhile go to the half that is valid still."""

    def begin(self) -> None:
        self._log.fill_begins(self)
        self._inner.begin()

    def follow(self, durable: Sequence[Entry]) -> None:
        """Commits made meanwhile, which the disk cannot take yet."""
        self._inner.meanwhile += durable

    def hold(self, header: CheckpointHeader) -> None:
        self._inner.hold(header)

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        self._inner.write(rows)

    def finish(self) -> None:
        if not self._log.still_wants(self):
            raise RedoLogError("it failed meanwhile, or other rows have taken the place of all")
        self._inner.finish()
        self._log.fill_ends(self, "")

    def abandon(self) -> None:
        try:
            self._inner.abandon()
        finally:
            self._log.fill_ends(self, self._log.why or UNWRITTEN)

    def tidy(self) -> None:
        self._inner.tidy()
