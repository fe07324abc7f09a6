"""What the coordinator looks after every half minute, and once when it starts.

Sessions idle for a day, tasks long done, the oldest of too many messages, garbage, and what calls left that could not
be ended. Clients of event.next hear that the pool lives.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

from services.api import garbage_collector, locking, sessions, tasks
from services.api.api import Api
from services.api.decisions import session_limits
from services.api.operations import message
from shared.contracts.db import Change, Delete, Precondition, RowPresent, Unchanged
from shared.errors import ApiError
from shared.store import Store

log = logging.getLogger("api.sweep")

EVERY: Final = 30.0
"""Seconds between two passes (`database-pool-ha` 1.11)."""


async def run(api: Api, every: float = EVERY) -> None:
    """Until cancelled. What cannot be written is tried again at the next pass."""
    progress: dict[str, float] = {}
    unattended: set[str] = set()
    await _try("garbage is not removed", garbage_collector.collect(api))
    while True:
        await asyncio.sleep(every)
        api.hub.heartbeat()
        before, unattended = unattended, set(tasks.unattended(api))
        await _try("leftovers of calls are not removed", _leftovers(api, before & unattended))
        await _try("the use of sessions is not written", _use_of_sessions(api))
        await _try("old sessions and tasks are not removed", _outdated(api, progress))
        progress = {ref: row["progress"] for ref, row in api.store.rows("task").items()}
        await _try("garbage is not removed", garbage_collector.collect(api))


async def _try(failed: str, work: Awaitable[object]) -> None:
    try:
        await work
    except ApiError as error:
        log.warning("%s: %s", failed, error)


async def drop_orphaned_locks(api: Api) -> None:
    changes = locking.orphans(api.store, api.running)
    if changes:
        log.warning("giving back %d locks that nobody holds any more", len(changes))
        await api.database.transact(changes, [RowPresent(cls=change.cls, ref=change.ref) for change in changes])


async def _leftovers(api: Api, unattended: set[str]) -> None:
    await tasks.abandon(api, unattended)
    await drop_orphaned_locks(api)


async def _use_of_sessions(api: Api) -> None:
    changes = sessions.in_use(api, time.time())
    if changes:
        await api.database.transact(changes)


async def _outdated(api: Api, progress: Mapping[str, float]) -> None:
    """A row that somebody changes meanwhile is looked at again."""

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        now = time.time()
        old = [("session", ref) for ref in session_limits.ended(store, now)]
        old += [("task", ref) for ref in tasks.collectable(api, now, progress)]
        old += [("message", ref) for ref in message.surplus(store)]
        changes = [Delete(cls=cls, ref=ref) for cls, ref in old]
        given = [Unchanged(cls=cls, ref=ref, generation=store.tables[cls].rows[ref].modified) for cls, ref in old]
        return changes, given, None

    await api.database.decide(decision)
