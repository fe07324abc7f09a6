"""Where the rows of a start come from: the redo log, or one of the files that could hold newer ones.

- `restore_db.db` says that this database and no other is wanted; it goes when its rows are durable.
- Else the highest generation wins, the redo log before any file of the same. Of files with the same generation the
  first wins: `ha_metadata.db`, `gen_metadata.db` (redo logs that others have written, brought here), then `db.conf`'s.
- A file that was written here, and that nobody has touched since, is no news to a redo log that has every persistent
  change of it, or that went on in a later term: what such a file has beyond the log was given up then, and stays so.
- One that was written here when this host was in another pool never counts.

(`database-pool-ha` 1.7, 2.4. The original asks the sidecars for generations; we ask the files.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from services.db.outputs.conf import Block
from services.db.outputs.dump_file import Origin

RESTORE: Final = "restore_db.db"
STAGED: Final = ("ha_metadata.db", "gen_metadata.db")


class Kind(Enum):
    RESTORE = "restore"
    STAGED = "staged"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Place:
    """A file that may be there."""

    path: Path
    kind: Kind


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is there. `generation`: of its manifest. `origin`: None if somebody else has written it."""

    place: Place
    generation: int
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """What the redo log holds ends at this generation; 0: it holds nothing. `pool`: which this host is in; "": any."""

    term: int
    generation: int
    pool: str = ""


def places(folder: Path, blocks: Iterable[Block]) -> list[Place]:
    """All that may be there, in the order in which ties are settled."""
    return [
        Place(folder / RESTORE, Kind.RESTORE),
        *(Place(folder / name, Kind.STAGED) for name in STAGED),
        *(Place(block.path, Kind.OUTPUT) for block in blocks),
    ]


def order(log: Log, found: Sequence[Found]) -> list[Found | Log]:
    """Best first. What comes later counts when the earlier cannot be read; the redo log can."""
    first = [file for file in found if file.place.kind is Kind.RESTORE]
    newer = [file for file in found if file.place.kind is not Kind.RESTORE and newer_than(log, file)]
    newer.sort(key=lambda file: -file.generation)
    return [*first, *newer] if log.generation == 0 else [*first, *newer, log]


def newer_than(log: Log, file: Found) -> bool:
    if file.origin is not None and file.origin.pool and log.pool and file.origin.pool != log.pool:
        return False
    if log.generation == 0:
        return True
    if file.origin is not None:
        return (file.origin.term, file.origin.persistent) > (log.term, log.generation)
    return file.generation > log.generation
