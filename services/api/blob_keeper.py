"""Keeps the files of blobs and their rows together: a file goes when its row has gone, whoever removed that."""

from __future__ import annotations

import asyncio

from services.api.api import Api
from shared.contracts.db import Change, Delta, RowPresent, Update
from shared.store import Touched


class BlobKeeper:
    """On the coordinator."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._gone: asyncio.Queue[str] = asyncio.Queue()

    async def begin(self) -> None:
        """Settles what happened while nobody looked, a crash between a new content and its row included."""
        self._api.replica.watch(self._watch)
        rows = self._api.store.rows("blob")
        known = {str(row["uuid"]): ref for ref, row in rows.items()}
        sizes = await asyncio.to_thread(self._api.blobs.sweep, known.keys())
        changes: list[Change] = [
            Update(cls="blob", ref=known[uuid], fields={"size": size})
            for uuid, size in sizes.items()
            if rows[known[uuid]]["size"] != size
        ]
        if changes:
            await self._api.database.transact(changes, [RowPresent(cls="blob", ref=change.ref) for change in changes])

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self._api.blobs.remove, await self._gone.get())

    def _watch(self, touched: list[Touched], _: Delta | None) -> None:
        for one in touched:
            if one.cls == "blob" and one.kind == "del":
                self._gone.put_nowait(str(one.row.fields["uuid"]))
