"""Another database takes the place of this one, in one step: its rows come in parts, then all count or none.

The step is a checkpoint whose generation is above all that is in the log. Whoever starts before it
finds the old rows, whoever starts after it the new ones; the log's older records are behind them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from services.db.checkpoint import Checkpoints
from services.db.committer import Committer
from services.db.redo.interface import RedoLogError
from shared import garbage
from shared.bus.contract import Empty
from shared.contracts.db import Committed, Delta, Restore, RestorePart, SnapshotRow
from shared.datamodel.types import RefType
from shared.errors import internal_error
from shared.store import NOTHING_WRITTEN, Store

log = logging.getLogger("db.restores")

KEEP_SECONDS: Final = 60.0
SLICE: Final = 200
"""Rows taken in before others get their turn."""


@dataclass(slots=True)
class _Coming:
    used: float
    parts: dict[int, list[SnapshotRow]] = field(default_factory=dict)


class Restores:
    """`writing`: held while all rows are written to a file. `publish`: tells followers."""

    def __init__(
        self,
        committer: Committer,
        checkpoints: Checkpoints,
        writing: asyncio.Lock,
        publish: Callable[[Delta], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._committer = committer
        self._checkpoints = checkpoints
        self._writing = writing
        self._publish = publish
        self._clock = clock
        self._coming: dict[str, _Coming] = {}

    async def part(self, request: RestorePart) -> Empty:
        """Raises INTERNAL_ERROR for rows that no database of ours can hold."""
        now = self._clock()
        for name in [name for name, coming in self._coming.items() if now - coming.used > KEEP_SECONDS]:
            del self._coming[name]
        tables = self._committer.store.tables
        for row in request.rows:
            if row.cls not in tables or not tables[row.cls].cls.persist:
                raise internal_error(f"rows of class {row.cls!r} are not restored")
        coming = self._coming.setdefault(request.restore, _Coming(now))
        coming.used = now
        coming.parts[request.number] = request.rows
        return Empty()

    async def restore(self, request: Restore) -> Committed:
        """Answers when it is durable. Raises INTERNAL_ERROR: then nothing has changed."""
        committer = self._committer
        name = f"restore-{request.restore}"
        async with self._writing:
            if name in committer.requests:
                return Committed(generation=committer.requests[name], term=committer.store.term)
            new = await self._brought(request)
            try:
                async with committer.alone():
                    self._keep(new, request)
                    _stamp(new, max(committer.store.generation, request.generation) + 1, committer.store.term + 1)
                    await self._checkpoints.replace(new, {**committer.requests, name: new.generation})
                    await committer.take_over(new, name)
                    term, at = new.term, new.generation
                    await self._publish(Delta(term=term, generation=at, previous=at, changes=[]))
            except RedoLogError as error:
                raise internal_error(f"nothing was restored: {error}") from error
        log.warning("another database was restored", extra={"rows": new.count(), "generation": at, "term": term})
        return Committed(generation=at, term=term)

    async def _brought(self, request: Restore) -> Store:
        """The rows of all parts, not yet complete."""
        coming = self._coming.pop(request.restore, None)
        parts = coming.parts if coming is not None else {}
        missing = [number for number in range(request.parts) if number not in parts]
        if missing:
            raise internal_error(f"{len(missing)} parts of the database have not arrived, {missing[0]} is the first")
        new = Store()
        with garbage.paused():
            for number in range(request.parts):
                rows = parts.pop(number)
                for begin in range(0, len(rows), SLICE):
                    new.add(rows[begin : begin + SLICE])
                    await asyncio.sleep(0)
        return new

    def _keep(self, new: Store, request: Restore) -> None:
        """Rows whose reference or uuid the other database has as well do not stay."""
        old = self._committer.store
        staying = [(cls, ref) for cls in request.keep for ref in old.tables[cls].rows]
        staying += [(old.by_ref[ref], ref) for ref in dict.fromkeys(request.rows) if ref in old.by_ref]
        for cls, ref in staying:
            fields = _renamed(old, cls, dict(old.tables[cls].rows[ref].fields), request.renamed)
            if ref not in new.by_ref and fields.get("uuid") not in new.by_uuid:
                new.add([SnapshotRow(cls=cls, ref=ref, created=0, modified=0, fields=fields)])


def _renamed(store: Store, cls: str, fields: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    for name, declared in store.tables[cls].cls.fields.items():
        if isinstance(declared.type, RefType) and fields[name] in renamed:
            fields[name] = renamed[fields[name]]
    return fields


def _stamp(new: Store, generation: int, term: int) -> None:
    """All rows are as new: whoever asks for changes since any moment gets every one."""
    for table in new.tables.values():
        for row in table.rows.values():
            row.created = row.modified = generation
            row.written = NOTHING_WRITTEN
    new.complete(generation, term)
