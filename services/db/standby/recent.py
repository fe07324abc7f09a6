"""The newest commits, kept for followers that have missed some of them: they need not fetch all rows."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from services.db.redo.interface import LogRecord
from shared.contracts.db import Delta, RowChange, RowDeleted

COUNT: Final = 50_000
BYTES: Final = 32 * 1024 * 1024
"""How much is kept, about: whichever is reached first."""

ANSWER_COUNT: Final = 2_000
ANSWER_BYTES: Final = 2 * 1024 * 1024
"""How much one answer brings."""

_OVERHEAD: Final = 200
_TEXT: Final = 40


class _Kept(NamedTuple):
    """`size`: about, in bytes. `time`: when it was committed, Unix, in seconds."""

    delta: Delta
    size: int
    time: float


class RecentDeltas:
    """A chain without gaps: each commit names its predecessor, and those that were taken back are bridged."""

    def __init__(self, count: int = COUNT, size: int = BYTES) -> None:
        self._count = count
        self._size = size
        self._deltas: deque[_Kept] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._deltas)

    def add(self, delta: Delta) -> None:
        """The next commit. One that does not follow the last begins a new chain."""
        if self._deltas and delta.previous != self._deltas[-1].delta.generation:
            self.clear()
        if delta.generation == delta.previous:
            return  # it says that a term has begun, and is no commit
        size = _size(delta.changes)
        self._deltas.append(_Kept(delta, size, time.time()))
        self._bytes += size
        while len(self._deltas) > self._count or (self._bytes > self._size and len(self._deltas) > 1):
            self._bytes -= self._deltas.popleft().size

    def clear(self) -> None:
        self._deltas.clear()
        self._bytes = 0

    def refill(self, records: Iterable[LogRecord], previous: int) -> None:
        """With what the log holds, at a start. `previous`: the generation that the first record follows."""
        for record in records:
            self.add(
                Delta(
                    term=record.term,
                    generation=record.generation,
                    previous=previous,
                    changes=record.changes,
                    task=record.task,
                    session=record.session,
                    request=record.request,
                    call=record.call,
                )
            )
            previous = record.generation

    def after(self, generation: int) -> tuple[list[tuple[Delta, float]], bool]:
        """Every commit after `generation` that is still there, with its time, and whether that is all of them."""
        found = [(kept.delta, kept.time) for kept in self._deltas if kept.delta.generation > generation]
        return found, not found or found[0][0].previous <= generation

    def since(self, generation: int) -> list[Delta] | None:
        """The oldest commits after `generation`, as many as fit an answer; None when they are no longer all there.

        A generation between two commits, which was never committed, counts as the earlier one.
        """
        deltas = self._deltas
        if not deltas or generation < deltas[0].delta.previous or generation > deltas[-1].delta.generation:
            return None
        first = bisect_right(deltas, generation, key=_generation)
        found: list[Delta] = []
        size = 0
        for kept in islice(deltas, first, first + ANSWER_COUNT):
            size += kept.size
            if found and size > ANSWER_BYTES:
                break
            found.append(kept.delta)
        if found and found[0].previous != generation:
            found[0] = msgspec.structs.replace(found[0], previous=generation)
        return found


def _generation(kept: _Kept) -> int:
    return kept.delta.generation


def _size(changes: list[RowChange]) -> int:
    """Bytes of memory and of JSON, roughly: texts dominate."""
    return _OVERHEAD + sum(
        _OVERHEAD if isinstance(change, RowDeleted) else _OVERHEAD + sum(map(_weight, change.fields.values()))
        for change in changes
    )


def _weight(value: Any) -> int:
    if isinstance(value, str):
        return _TEXT + len(value)
    if isinstance(value, list | tuple):
        return _TEXT + sum(map(_weight, value))
    if isinstance(value, dict):
        return _TEXT + sum(_weight(key) + _weight(item) for key, item in value.items())
    return _TEXT
