"""How the merging of images goes on, in the rows of SRs: `sm_config:coalesce`, for who looks with xe.

It is "running" while a merge takes longer than a moment, "failed: <why>" while the last one has failed, and is not
there otherwise. A coordinator that is new knows only what it has heard itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from services.api.api import Api
from shared.contracts.db import Change, MapDrop, MapPut, Precondition, RowPresent
from shared.contracts.storage import MERGES, Merge
from shared.errors import ApiError
from shared.store import Store

log = logging.getLogger("api.merges")

KEY: Final = "coalesce"
SETTLES: float = 2.0
"""Seconds: merges that are over before are in nobody's row."""
_LONGEST: Final = 300
"""Characters of a reason."""


def summary(latest: Iterable[Merge]) -> str:
    """Of the last events of an SR on its hosts; "" if there is nothing to say."""
    events = list(latest)
    if any(each.event == "begin" for each in events):
        return "running"
    failed = [each.why for each in events if each.event == "failed"]
    return f"failed: {failed[0]}"[:_LONGEST] if failed else ""


class MergeRows:
    """Coordinator only."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._latest: dict[str, dict[str, Merge]] = {}
        """By SR and host (uuids)."""
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    async def subscribe(self) -> None:
        await self._api.bus.subscribe(MERGES, self._on_merge)

    def _on_merge(self, merge: Merge, _: str) -> None:
        self._latest.setdefault(merge.sr, {})[merge.host] = merge
        self._changed.add(merge.sr)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. What cannot be written is tried again."""
        for row in self._api.store.rows("SR").values():
            if KEY in row["sm_config"]:  # nobody may be left to say that it is over
                self._changed.add(row["uuid"])
                self._wake.set()
        while True:
            await self._wake.wait()
            await asyncio.sleep(SETTLES)
            self._wake.clear()
            for sr in sorted(self._changed):
                self._changed.discard(sr)
                try:
                    await self._write(sr)
                except ApiError as error:
                    log.warning("the row of SR %s does not say yet how its images are merged: %s", sr, error)
                    self._changed.add(sr)
                    self._wake.set()

    async def _write(self, sr: str) -> None:
        text = summary(self._latest.get(sr, {}).values())

        def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
            ref = store.ref_of_uuid("SR", sr)
            row = store.row("SR", ref) if ref is not None else None
            if ref is None or row is None:
                self._latest.pop(sr, None)
                return [], [], None
            if row["sm_config"].get(KEY, "") == text:
                return [], [], None
            change: Change = MapDrop(cls="SR", ref=ref, field="sm_config", key=KEY)
            if text:
                change = MapPut(cls="SR", ref=ref, field="sm_config", key=KEY, value=text)
            return [change], [RowPresent(cls="SR", ref=ref)], None

        await self._api.database.decide(decision)
