"""Removes disks that were not finished, since the API process that made them was killed: each host what was uploaded
to it, the coordinator the rest. What cannot be removed yet, as its SR is not there, is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from services.api import member
from services.api.api import Api
from services.api.call import OWN
from services.api.decisions import unfinished_disks as decisions
from services.api.decisions.rows import existing
from services.api.decisions.sr_hosts import host_for
from services.api.edge.dispatcher import Caller
from services.api.storage_hosts import rescan
from services.api.subcalls import perform_alone
from shared.contracts.db import Change, MapDrop, RowPresent
from shared.errors import ApiError
from shared.selection import Selection

log = logging.getLogger("api.unfinished")

EVERY: Final = 10.0
"""Seconds between two looks."""


class UnfinishedDisks:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._told: set[str] = set()
        self._marked = Selection("VDI", decisions.is_marked)

    async def run(self) -> None:
        """Until cancelled."""
        await self._api.replica.wait_ready()
        while True:
            if self._api.is_coordinator:
                for sr, calls in self._lost().items():
                    await self._try(sr, self._look_into(sr, calls))
            for vdi in self._left():
                await self._try(vdi, self._remove(vdi))
            await asyncio.sleep(EVERY)

    async def _try(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            self._told.discard(what)
        except ApiError as error:
            if what not in self._told:
                self._told.add(what)
                log.warning("unfinished disks: %s: %s; tried again", what, error)

    def _left(self) -> list[str]:
        store = self._api.store
        marked = {vdi: existing(store, "VDI", vdi) for vdi in self._marked.among(store)}
        return [vdi for vdi, row in marked.items() if self._is_left(decisions.owner(row))]

    def _is_left(self, owner: str | None) -> bool:
        """Whether it is this process that has to remove it, or to drop a mark that means nothing."""
        api = self._api
        if owner is None:
            return False
        if owner.startswith(decisions.UPLOAD):
            host, _, process = owner.removeprefix(decisions.UPLOAD).partition("/")
            if host in {config.uuid for config in api.hosts}:
                return process != api.process
            return api.is_coordinator and api.store.ref_of_uuid("host", host) is None
        return api.is_coordinator and owner not in api.running

    def _lost(self) -> dict[str, list[str]]:
        """SRs in which calls may have left a disk, and the calls."""
        rows = self._api.store.rows("SR").items()
        return {sr: calls for sr, row in rows if (calls := decisions.lost_in(row, self._api.running))}

    async def _look_into(self, sr: str, calls: list[str]) -> None:
        api = self._api
        await rescan(api, sr, api.uuid_of("host", host_for(api.store, sr)))
        changes = decisions.looked_into(api.store, sr, calls)
        await api.database.transact(changes, [RowPresent(cls=change.cls, ref=change.ref) for change in changes])

    async def _remove(self, vdi: str) -> None:
        api = self._api
        row = api.store.row("VDI", vdi)
        if row is None:
            return
        if decisions.owner(row) and decisions.is_unused(api.store, vdi):
            log.warning("disk %s (%s) was not finished and is removed", row["uuid"], row["name_label"])
            await self._destroy(vdi)
            return
        log.info("disk %s is kept", row["uuid"])
        unmarked: list[Change] = [MapDrop(cls="VDI", ref=vdi, field="other_config", key=decisions.MARK)]
        await api.database.transact(unmarked, [RowPresent(cls="VDI", ref=vdi)])

    async def _destroy(self, vdi: str) -> None:
        api = self._api
        if api.is_coordinator:
            await perform_alone(api, "VDI.destroy", vdi)
        else:
            caller = Caller(host=api.host_uuid, trusted=True, originator=OWN)
            await member.ask_as_host(api, caller, "VDI.destroy", [vdi])
