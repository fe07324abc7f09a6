"""Runs the hook on every host of the pool, behind the back of the call that is the reason."""

from __future__ import annotations

import asyncio

from services.api.api import Api
from services.api.decisions.liveness import is_live
from services.api.directory.hooks import Hooks
from services.api.directory.host_directory import setup_of


class PoolHooks:
    """Owns the runs that have begun. Coordinator only."""

    def __init__(self, api: Api, hooks: Hooks) -> None:
        self._api = api
        self._hooks = hooks
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, event: str) -> None:
        """On all hosts that live and are in a directory."""
        store = self._api.store
        for ref, row in store.rows("host").items():
            setup = setup_of(row)
            if setup is not None and is_live(store, ref):
                self.begin_on(event, row["uuid"], setup.auth_type, setup.service_name)

    def begin_on(self, event: str, host: str, auth_type: str, service_name: str) -> None:
        work = self._hooks.run(event, host, auth_type, service_name)
        task = asyncio.create_task(work, name=f"hook {event} on {host}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def run_on(self, event: str, host: str, auth_type: str, service_name: str) -> None:
        """The same, until it has run."""
        await self._hooks.run(event, host, auth_type, service_name)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
