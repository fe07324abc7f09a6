"""The hosts as the database has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from shared.contracts.db import RowPresent, Update
from shared.database import Database
from shared.errors import DatabaseConflict
from shared.replica import Replica


class HostRecords(Protocol):
    def live(self) -> Mapping[str, bool]:
        """Every host (uuid) and whether it is recorded as live. Empty while that is not known."""
        ...

    def name(self, host: str) -> str:
        """Of a host (uuid) for people; the uuid where there is none."""
        ...

    async def set_live(self, host: str, live: bool) -> None:
        """Raises ApiError, of which `BusError` while the database is away."""
        ...


class DatabaseRecords:
    """`host_metrics.live`, read from a replica and written by transactions."""

    def __init__(self, replica: Replica, database: Database) -> None:
        self._replica = replica
        self._database = database

    def live(self) -> Mapping[str, bool]:
        if not self._replica.ready:
            return {}
        store = self._replica.store
        recorded = {}
        for host in store.rows("host").values():
            metrics = store.row("host_metrics", host["metrics"])
            if metrics is not None:
                recorded[str(host["uuid"])] = bool(metrics["live"])
        return recorded

    def name(self, host: str) -> str:
        store = self._replica.store
        row = store.row("host", store.ref_of_uuid("host", host) or "")
        return f"'{row['name_label']}'" if row is not None else host

    async def set_live(self, host: str, live: bool) -> None:
        """A host that was removed meanwhile needs no record."""
        store = self._replica.store
        ref = store.ref_of_uuid("host", host)
        row = store.row("host", ref) if ref else None
        if row is None:
            return
        metrics = str(row["metrics"])
        try:
            await self._database.transact(
                [Update(cls="host_metrics", ref=metrics, fields={"live": live})],
                [RowPresent(cls="host_metrics", ref=metrics)],
            )
        except DatabaseConflict:
            return
