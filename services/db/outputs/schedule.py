"""When a file of `db.conf` is due (`database-pool-ha` 1.6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.db.outputs.conf import Block, Mode

TICK: Final = 2.0
"""Seconds between two looks at all files."""
PAUSE: Final = 300.0
"""Seconds after a write in which there is no other: changes come together."""
FIRST_RETRY: Final = 10.0
"""Seconds after a write that failed; doubled from failure to failure, up to `PAUSE`."""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one file so far. `wrote`, `period`: when it was last written, when its period began (clock).

    `generation`: of the rows that it holds, -1 while nobody knows. `writes`: in this period. `failures`: since it was
    last written; no other attempt before `again`.
    """

    wrote: float
    period: float
    generation: int = -1
    writes: int = 0
    failures: int = 0
    again: float = 0.0


def begun(now: float) -> Record:
    """At the start: as if it had just been written, so a start is no reason for a write."""
    return Record(wrote=now, period=now)


def due(block: Block, record: Record, now: float, generation: int, exiting: bool = False) -> bool:
    """Whether to write now the rows, which are at `generation`."""
    if generation <= record.generation:
        return False
    if exiting:
        return True
    if now - record.wrote < PAUSE or now < record.again:
        return False
    return block.mode is Mode.NO_LIMIT or record.writes < block.writes


def passed(block: Block, record: Record, now: float) -> Record:
    """A period that is over begins anew."""
    if now - record.period > block.period:
        return replace(record, period=now, writes=0)
    return record


def written(record: Record, now: float, generation: int) -> Record:
    return replace(record, wrote=now, generation=generation, writes=record.writes + 1, failures=0, again=0.0)


def failed(record: Record, now: float) -> Record:
    pause = min(PAUSE, FIRST_RETRY * 2.0 ** min(record.failures, 10))
    return replace(record, failures=record.failures + 1, again=now + pause)
