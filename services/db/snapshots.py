"""All rows at one generation, in pages, for replicas that start or have missed something."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from services.db.committer import Committer
from shared.contracts.db import SnapshotPage, SnapshotRequest, SnapshotRow, TermStart
from shared.errors import internal_error
from shared.store import Store

PAGE_ROWS = 500
KEEP_SECONDS = 60.0


@dataclass(slots=True)
class _Open:
    term: int
    generation: int
    rows: list[SnapshotRow]
    used: float
    lineage: list[TermStart]


class Snapshots:
    """The rows of a snapshot are the store's own: field maps are copied, their values never change in place.

    `lineage`: of the store's rows.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        lineage: Callable[[], list[TermStart]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._committer = committer
        self._lineage = lineage
        self._clock = clock
        self._open: dict[str, _Open] = {}

    async def page(self, request: SnapshotRequest) -> SnapshotPage:
        """Raises INTERNAL_ERROR for a snapshot that has been dropped: begin a new one."""
        now = self._clock()
        for name in [name for name, opened in self._open.items() if now - opened.used > KEEP_SECONDS]:
            del self._open[name]
        name = request.snapshot
        if not name:
            name = str(uuid.uuid4())
            store = self._store
            frozen = [
                SnapshotRow(
                    cls=r.cls,
                    ref=r.ref,
                    created=r.created,
                    modified=r.modified,
                    fields=dict(r.fields),
                    written=r.written,
                )
                for r in store.snapshot()
            ]
            self._open[name] = _Open(store.term, store.generation, frozen, now, self._lineage())
            await self._committer.wait_durable(store.generation)
        opened = self._open.get(name)
        if opened is None:
            raise internal_error(f"snapshot {name} is no longer held")
        opened.used = now
        pages = max(1, -(-len(opened.rows) // PAGE_ROWS))
        begin = request.page * PAGE_ROWS
        if request.page == pages - 1:
            del self._open[name]
        return SnapshotPage(
            snapshot=name,
            term=opened.term,
            generation=opened.generation,
            page=request.page,
            pages=pages,
            rows=opened.rows[begin : begin + PAGE_ROWS],
            lineage=[] if request.page else opened.lineage,
            requests=self._finished(opened.generation) if request.requests else {},
        )

    def _finished(self, generation: int) -> dict[str, int]:
        """Requests whose commits are in the snapshot: whoever goes on from it must not know of later ones."""
        return {request: at for request, at in self._committer.requests.items() if at <= generation}
