"""The `block` redo log: commits in the original's layout, on a device that another host can take over.

The layout has no transactions and no checksums, and the original writes each delta by itself. Here a batch of commits
counts as a whole or not at all, for every reader, which takes two syncs (`Device.prepare_append`); and notes that
readers pass over (`notes`) keep terms, ids of requests and checksums.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from services.db.disk import Disk
from services.db.redo.block import commits
from services.db.redo.block.checkpoint import (
    BlockCheckpoint,
    Postponed,
    empty_database,
    ends_of,
    too_large,
    write_database,
)
from services.db.redo.block.device import LOCK_WAIT, Device, Unusable
from services.db.redo.block.patience import Hung, Patience
from services.db.redo.block.reading import Reading, read, recovered
from services.db.redo.interface import Entry, LogFull, LogLost, Recovered, RedoLogError, Uncertain
from shared.contracts.db import RowChange
from shared.redo_blocks import deltas, layout
from shared.redo_blocks.layout import UPSTREAM, Damaged, Geometry, Half

log = logging.getLogger("db.redo_log")

PATIENCE: Final = 30.0
"""Seconds that the device may take for one step."""

ROOMY: Final = 0.75
"""Of the room that a half has besides its database."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Batch:
    """Durable commits as records that follow what the half holds now."""

    entries: Sequence[Entry]
    records: bytes


class BlockRedoLog:
    """`half`: the valid one, or NONE. Offsets are in the half.

    What the device does happens in a thread of its own, which may be left behind; what is known of it changes when
    that has answered.

    The device may be one that several hosts reach. `primary` says whether this process is to write to it: it takes it
    over with the first term that it begins as primary. Until then it is `idle`: it has looked at it, and leaves it
    alone. `on_behind` hears of a takeover that failed because somebody has written to it since.
    """

    kind = "block"

    def __init__(
        self,
        path: Path,
        disk: Disk | None = None,
        *,
        geometry: Geometry = UPSTREAM,
        format: bool = False,
        create: bool = True,
        patience: float = PATIENCE,
        primary: Callable[[], bool] = lambda: True,
        on_behind: Callable[[str], None] = lambda why: None,
    ) -> None:
        self.device = Device(path, disk or Disk(), geometry, format)
        self.half = Half.NONE
        self.bytes = 0
        self.syncs = 0
        self._create = create
        self._patience = Patience(patience)
        self._marker = b""
        self._base = 0
        self._end = 0
        self._primary = primary
        self._on_behind = on_behind
        self._found_term = 0
        self._writes = False
        self._replaced = False
        """Whether other rows have taken the place of those that it holds, while it was idle."""
        self._looked = False
        self._follows = False
        """Whether there is a database in the valid half that commits can follow."""
        self._ready = False
        self._failed = False
        self._unsure = False
        """Whether another half may have been made valid."""
        self._checkpoint: BlockCheckpoint | None = None

    @property
    def backlog(self) -> int:
        return self._end - self._base

    @property
    def follows(self) -> bool:
        """Whether there is a database that commits can follow; all rows have to be written to it first, if not."""
        return self._follows

    @property
    def idle(self) -> bool:
        return not self._writes

    @property
    def roomy(self) -> bool:
        return self.idle or (self._follows and self.backlog <= ROOMY * (self.device.geometry.half - self._base))

    @property
    def device_is_stuck(self) -> bool:
        """Whether it still has not answered what was given up."""
        return self._patience.stuck

    def generations(self, changes: Sequence[RowChange]) -> int:
        return deltas.generations(changes)

    # ---- reading

    def recover(self) -> Recovered:
        """What the valid half holds. A batch that a crash has left unfinished does not count.

        Damage that may be what a crash of another writer has left ends it, loudly. Raises `LogLost` for damage that has
        taken more; then it can be begun all the same, when another log has it all, and gets a checkpoint first.
        """
        if not self._primary():
            return self._look()
        try:
            return self._recover()
        except LogLost:
            raise
        except RedoLogError:
            if not self._patience.stuck:
                self.device.close()  # another process may have it
            raise

    def _look(self) -> Recovered:
        """Nothing where it cannot be read: whoever takes it over looks again."""
        try:
            return self.look()
        except RedoLogError as error:
            log.warning("%s; it is not this process's to write to, so that it starts all the same", error)
            self._nothing()
            self._looked = True
            return Recovered()

    def look(self) -> Recovered:
        """What the valid half holds, read without a lock. Raises as `recover` does."""
        try:
            return self._recover(write=False)
        finally:
            if not self._patience.stuck:
                self.device.close()

    def _recover(self, *, write: bool = True) -> Recovered:
        half, data = self._try("cannot be opened", lambda: self._open_and_read(write))
        self._nothing(half)
        self._looked = True
        if half is Half.NONE:
            return Recovered()
        try:
            reading = read(data)
        except Damaged as damage:
            what = f"cannot be used: its valid half ({half}) holds no database that can be read: {damage}"
            raise LogLost(self._says(what)) from None
        self._judge(half, reading)
        self._is_at(half, reading.marker, reading.base, reading.end)
        for name, count in reading.dump.unknown.items():
            log.warning("%s: %s is not known here, %d rows", self.device.path, name, count)
        found = recovered(reading)
        self._found_term = found.term
        return found

    def _open_and_read(self, write: bool) -> tuple[Half, bytes]:
        device = self.device
        device.open(create=write and self._create, wait=LOCK_WAIT if write else 0.0, write=write)
        if write:
            device.prepare()
        half = device.valid()
        return half, b"" if half is Half.NONE else device.read_half(half)

    def _judge(self, half: Half, reading: Reading) -> None:
        """Raises `LogLost` when commits that were acknowledged are known to be gone."""
        where = f"half {half} of {self.device.path} at byte {reading.end}"
        if reading.lost is not None:
            why = reading.damage.why if reading.damage is not None else "the log ends there"
            what = f"is damaged in half {half} at byte {reading.end} ({why}), and commits follow at byte {reading.lost}"
            raise LogLost(self._says(f"{what}; `python -m services.db.redo.block cut` gives up what follows"))
        if reading.damage is not None:
            log.critical("%s is no commit (%s): what was read before counts", where, reading.damage.why)

    def _nothing(self, half: Half = Half.NONE) -> None:
        """There is nothing that commits could follow; the next database goes to the other half than that."""
        self._is_at(half, b"", 0, 0)
        self._follows = False

    def _is_at(self, half: Half, marker: bytes, base: int, end: int) -> None:
        self.half, self._marker, self._base, self._end = half, marker, base, end
        self._follows = True

    # ---- writing

    def begin(self, generation: int, term: int) -> None:
        """Says durably that the term begins, where there is a database; at generation 0 an empty one is written.

        After a failure the device is opened anew: it may be another one now. One that is blank gets the next
        checkpoint; one that somebody else has written to is left alone.
        """
        self._ready = False
        if not self._primary():
            self._lay_down()
            return
        if not self._looked or (not self._writes and self.device.descriptor < 0):
            self._take_over(generation, term)
        elif (self.device.descriptor < 0 or self._failed) and not self._try("cannot be used again", self._as_left):
            log.error("%s came back empty: all rows are written to it anew", self.device.path)
            self._nothing()
        if self._replaced:
            self._nothing(self.half)  # the rows are not those that it ends with: all of them are written to it first
        self._failed = self._unsure = self._replaced = False
        self._writes = True
        if self.half is Half.NONE and generation == 0:
            self._found()
        if self._follows:
            self._try("cannot be written", lambda: self.device.end_at(self._at(self._end)))
            record = commits.term_begins(generation, term, self._marker, self._end)
            if self._fits(record):  # else the next commit does not fit either, and a checkpoint has the term
                try:
                    self._append(record)
                except Uncertain as error:
                    raise RedoLogError(str(error)) from error  # nothing changes if it counts
        self._ready = True

    def _lay_down(self) -> None:
        """It is another process's to write to; what it will hold when it is taken over again is not known."""
        self._miss()
        if self._writes and not self._patience.stuck:
            self.device.close()
            self._writes = False
            self._replaced = True

    def _take_over(self, generation: int, term: int) -> None:
        """Raises `RedoLogError`: also where somebody has written to it what this process has not."""
        seen, before = (self.half, self._marker, self._end), self._found_term
        looked = self._looked
        found = self._recover()
        changed = looked and not self._replaced and seen != (self.half, self._marker, self._end)
        if changed or found.generation > generation or found.term >= term:
            why = self._says(f"goes up to generation {found.generation} of term {found.term}: start again")
            self._nothing(self.half)
            self._looked = False
            self._on_behind(why)
            raise RedoLogError(why)
        if looked and term != before + 1:
            self._replaced = True

    def _as_left(self) -> bool:
        """Opens the device again; False: it is empty. Raises `Unusable` when somebody has been there."""
        device = self.device
        device.open()
        device.prepare()
        half = device.valid()
        if half is Half.NONE:
            return self.half is Half.NONE
        if not self._is_ours() or (half is not self.half and not self._unsure):
            raise Unusable("somebody else has written to it meanwhile; whoever starts anew uses what it holds now")
        if self._unsure:
            device.set_valid(self.half)  # what is read may be what a sync that failed has left in memory
        return True

    def _is_ours(self) -> bool:
        if not self._follows:
            return self._unsure or self.half is not Half.NONE  # it was damaged, and says the same still
        start = self.device.geometry.start(self.half)
        ends = (start, start + self._end - layout.MARKER)
        return all(self.device.read(at, layout.MARKER) == self._marker for at in ends)

    def _found(self) -> None:
        """An empty database: nothing was ever committed."""
        checkpoint = self._next_database()
        self._try("cannot be written", lambda: write_database(self, checkpoint, empty_database()))
        self._switch(checkpoint)

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        """What is volatile has no place here, and is not kept."""
        durable = [entry for entry in entries if entry.record.durable]
        if sync and durable:
            self.write(self.batch(durable))

    def batch(self, durable: Sequence[Entry]) -> Batch:
        """For `write`; nothing happens yet. Raises `LogFull`, `RedoLogError`."""
        if not self._ready:
            raise RedoLogError(self._says("is not ready"))
        if not self._follows:
            raise LogFull(self._says("holds no database that they could follow"))
        try:
            records = commits.encode(durable, self._marker, self._end)
        except RedoLogError:
            self._miss()
            raise
        if not self._fits(records):
            raise LogFull(self._says(f"has no room for {len(records)} bytes in its half"))
        return Batch(durable, records)

    def write(self, batch: Batch) -> None:
        """Raises as `append` does."""
        self._append(batch.records)
        if self._checkpoint is not None:
            self._checkpoint.meanwhile += batch.entries

    def _append(self, records: bytes) -> None:
        """Raises `RedoLogError`: it does not count; `Uncertain`."""
        at = self._at(self._end)
        self._try("cannot be written", lambda: self.device.prepare_append(at, records))
        try:
            self._try("cannot be written", lambda: self.device.append(at, records))
        except RedoLogError as error:
            try:
                self._try("cannot take off what may count", lambda: self.device.end_at(at))
            except RedoLogError as again:
                raise Uncertain(f"{error}; {again}") from error
            raise
        self._end += len(records)
        self.bytes += len(records)
        self.syncs += 2

    def _fits(self, records: bytes) -> bool:
        return self._end + len(records) + len(layout.END) <= self.device.geometry.half

    def _at(self, offset: int) -> int:
        return self.device.geometry.start(self.half) + offset

    def close(self) -> None:
        """One that does not answer is closed, and unlocked, when it does."""
        self._ready = False
        if self._patience.stuck:
            log.error("%s still has not answered: it stays open until it does", self.device.path)
        self._patience.close(self.device.close)

    # ---- checkpoints

    def checkpoint(self) -> BlockCheckpoint | Postponed:
        """While it is idle it notes that there was one."""
        return Postponed(self.replaced) if self.idle else self._next_database()

    def _next_database(self) -> BlockCheckpoint:
        return BlockCheckpoint(self, str(uuid.uuid4()).encode())

    def replaced(self) -> None:
        self._replaced = True

    def checkpoint_begins(self, checkpoint: BlockCheckpoint) -> None:
        self._checkpoint = checkpoint

    def checkpoint_counts(self, checkpoint: BlockCheckpoint) -> None:
        """Commits made meanwhile follow it into its half; then the validity byte says so."""
        if checkpoint.missed or checkpoint.before is not self.half:
            raise RedoLogError(self._says("failed while a checkpoint was written"))
        self._switch(checkpoint)
        self._checkpoint = None

    def _switch(self, checkpoint: BlockCheckpoint) -> None:
        device, half = self.device, checkpoint.half
        base = self._try("cannot be read", lambda: ends_of(device, half, checkpoint.marker))
        records = commits.encode(checkpoint.meanwhile, checkpoint.marker, base)
        end = base + len(records)
        if end + len(layout.END) > device.geometry.half:
            raise too_large("the database and the commits made meanwhile are", end, device.geometry.half)
        self._try("cannot be written", lambda: device.put(device.geometry.start(half) + base, records))
        checkpoint.claimed = True
        self._try("cannot be written", lambda: device.set_valid(half))
        self._is_at(half, checkpoint.marker, base, end)
        self.bytes += end
        self.syncs += 3

    def checkpoint_withdrawn(self, checkpoint: BlockCheckpoint) -> None:
        """The half that was valid is valid; where that cannot be said, nothing is appended before it can.

        Both halves hold the same commits then, so that it does not matter which one a start finds: unless the rows are
        others, as in a restore. Then it raises.
        """
        own, self._checkpoint = self._checkpoint is checkpoint, None
        if not checkpoint.claimed or self.half is checkpoint.half:
            return
        self._unsure = True
        try:
            self._try("a checkpoint that must not count cannot be withdrawn", lambda: self.device.set_valid(self.half))
        except RedoLogError as error:
            if not own:
                raise
            log.error("%s", error)
        else:
            self._unsure = False

    # ---- failures

    def _try(self, what: str, work: Callable[[], Result]) -> Result:
        """Raises `RedoLogError`; nothing is appended then before the next `begin`."""
        try:
            return self._patience.call(work)
        except (OSError, Unusable, Hung) as error:
            self._ready, self._failed = False, True
            self._miss()
            raise self.failed(what, error) from error

    def _miss(self) -> None:
        """A checkpoint that is being written cannot count any more: a commit that it has not is in no half."""
        if self._checkpoint is not None:
            self._checkpoint.missed = True

    def failed(self, what: str, error: Exception) -> RedoLogError:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return RedoLogError(self._says(f"{what}: {why}"))

    def _says(self, what: str) -> str:
        return f"the redo log {self.device.path} {what}"
