"""The `off` log, as the original is without one: what is committed is durable when all rows are written to a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.db.redo.interface import CheckpointHeader, Entry, Recovered
from shared.contracts.db import RowChange, SnapshotRow


class NoRedoLog:
    """Holds nothing and syncs nothing. Beside it are the local journal and the XML files."""

    kind = "off"
    bytes = 0
    syncs = 0
    backlog = 0
    roomy = True

    def generations(self, changes: Sequence[RowChange]) -> int:
        return 1

    def recover(self) -> Recovered:
        return Recovered()

    def begin(self, generation: int, term: int) -> None:
        """There is nothing to make ready."""

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        """Counts the bytes that a power cut now would lose."""
        self.bytes += sum(len(item.frame) for item in entries)

    def checkpoint(self) -> NoCheckpoint:
        return NoCheckpoint()

    def close(self) -> None:
        """There is nothing open."""


class NoCheckpoint:
    """The journal has one of its own."""

    def begin(self) -> None:
        """Nothing to prepare."""

    def hold(self, header: CheckpointHeader) -> None:
        """Nothing to note."""

    def write(self, rows: Iterable[SnapshotRow]) -> None:
        """Nothing to keep."""

    def finish(self) -> None:
        """Nothing that could count."""

    def abandon(self) -> None:
        """Nothing to remove."""

    def tidy(self) -> None:
        """Nothing to replace."""
