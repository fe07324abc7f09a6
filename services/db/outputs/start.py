"""The start of a primary: whose rows it has, and what must be done before anybody is served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.db.disk import Disk
from services.db.outputs import dump_file
from services.db.outputs.adoption import adopted, make_durable
from services.db.outputs.candidates import Kind, Log, Place, places
from services.db.outputs.conf import Block
from services.db.outputs.startup import newest
from services.db.redo.interface import Recovered, RedoLog
from shared.store import Store


@dataclass(frozen=True, slots=True)
class Begun:
    """`requests`: ids of finished requests with their generations. `source`: None where the rows are the redo log's.

    `behind`: they are of a file of our own, since the redo log was lost.
    """

    store: Store
    requests: dict[str, int]
    source: Place | None = None
    behind: bool = False


def begin(
    redo_log: RedoLog,
    found: Recovered,
    held: Store,
    *,
    boot: str,
    folder: Path,
    blocks: list[Block],
    disk: Disk | None = None,
    pool: str = "",
) -> Begun:
    """The rows, and the log ready for what follows them.

    `found`, `held`: what the log holds, and its rows. `folder`: where files may have been put. `pool`: uuid of the one
    that this host is in.
    Rows of a file are in the redo log, durably, when it returns.

    Raises `UnreadableDatabase`, `RedoLogError`, `OSError`.
    """
    known = Log(found.term, found.generation if held.count() else 0, pool)
    loaded = newest(places(folder, blocks), known)
    if loaded is None:
        redo_log.begin(held.generation, held.term)
        return Begun(held, found.requests)
    place = loaded.found.place
    restoring = place.kind is Kind.RESTORE
    new = adopted(loaded, held, folder)
    requests = {} if restoring else found.requests
    make_durable(new, redo_log, boot, requests)
    redo_log.begin(new.generation, new.term)
    if restoring:
        # With it, the next start would undo all that follows.
        dump_file.remove(disk or Disk(), place.path)
    return Begun(new, requests, place, behind=loaded.found.origin is not None)
