"""Which host a VM starts on, decided one after the other so that two starts do not count on the same memory."""

from __future__ import annotations

import random

from services.api.api import Api
from services.api.decisions import placement as decision
from services.api.decisions.memory import MemoryIndex
from shared.contracts.db import Delta
from shared.errors import ApiError
from shared.store import Touched


class Placement:
    """Keeps each host's memory use up to date from the replica, plus what was promised and is not written yet."""

    def __init__(self, api: Api, rng: random.Random | None = None) -> None:
        self._api = api
        self._rng = rng or random.Random()
        self._index = MemoryIndex()
        api.replica.watch(self._on_commit)

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        for item in touched:
            if item.cls == "VM":
                self._index.update(item.ref, None if item.kind == "del" else item.row.fields)

    @property
    def memory(self) -> MemoryIndex:
        return self._index

    def choose(self, vm: str) -> str:
        """A host for the VM. Raises NO_HOSTS_AVAILABLE."""
        return decision.choose_host(self._api.store, vm, self._rng, self._index)

    def check(self, vm: str, host: str) -> ApiError | None:
        """Why the VM cannot be started on that host."""
        return decision.check_start_on(self._api.store, vm, host, self._index)

    def promise(self, vm: str, host: str) -> None:
        """Counts the VM on the host from now on, until its row says where it is."""
        row = self._api.store.row("VM", vm)
        if row is not None:
            self._index.update(vm, {**row, "scheduled_to_be_resident_on": host})

    def withdraw(self, vm: str) -> None:
        """The start did not come about: the row alone counts again."""
        self._index.update(vm, self._api.store.row("VM", vm))
