"""Rows of class Observer, followed: which calls are traced, and by whom their spans are recorded.

A call that is carried out under an enabled observer leaves spans as if its client had asked for a trace. The one place
where spans go is each process's own file, which the XenAPI calls `bugtool`; an observer that names no endpoint records
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from shared import trace
from shared.contracts.db import Delta
from shared.errors import ApiError
from shared.store import Touched

if TYPE_CHECKING:
    from services.api.api import Api

BUGTOOL: Final = "bugtool"
COMPONENTS: Final = ("xapi", "xenopsd", "xapi-clusterd", "smapi")
LONGEST_VALUE: Final = 4095
_KEY: Final = re.compile(r"[a-z0-9][a-z0-9._]{0,253}[a-z0-9]")


class Observers:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._unregistered: set[tuple[str, str]] = set()
        self._observed: str | None = ""
        api.replica.watch(self._on_commit)

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        if any(item.cls == "Observer" or (item.cls == "host" and item.kind != "mod") for item in touched):
            self._observed = None

    def register(self, observer: str, host: str) -> None:
        """The host follows the observer again."""
        self._unregistered.discard((observer, host))
        self._observed = None

    def unregister(self, observer: str, host: str) -> None:
        """The host does not, until it is registered or this service starts again."""
        self._unregistered.add((observer, host))
        self._observed = None

    def context(self, traceparent: str, observed: str) -> tuple[str, str]:
        """How a call goes on that came with these: what its client, or the ratio, has sampled is for everybody."""
        if trace.sampled(traceparent):
            return traceparent, observed
        if self._observed is None:
            self._observed = trace.scopes(self._scopes())
        if not self._observed:
            return traceparent, ""
        return trace.as_sampled(traceparent) if traceparent else trace.new_traceparent(), self._observed

    def attributes(self) -> dict[str, str]:
        """Of the first span of a call: what the pool, the host and the enabled observers are called."""
        store = self._api.store
        host = store.row("host", self._api.host_ref)
        found = {"xs.pool.uuid": str(self._api.pool()["uuid"]), "service.name": "xapi"}
        if host is not None:
            found |= {"xs.host.name": host["name_label"], "xs.host.uuid": host["uuid"]}
        for row in store.rows("Observer").values():
            if row["enabled"]:
                found |= {"xs.observer.name": row["name_label"], "xs.observer.uuid": row["uuid"], **row["attributes"]}
        return found

    def _scopes(self) -> list[trace.Scope]:
        store = self._api.store
        return [
            trace.Scope(hosts, frozenset(row["components"]))
            for ref, row in store.rows("Observer").items()
            if row["enabled"] and BUGTOOL in row["endpoints"] and (hosts := self._hosts(ref, row["hosts"])) is not None
        ]

    def _hosts(self, observer: str, hosts: list[str]) -> frozenset[str] | None:
        """Uuids; empty: all. None: no host is left."""
        absent = {host for of, host in self._unregistered if of == observer}
        rows = self._api.store.rows("host")
        if not hosts and not absent:
            return frozenset()
        left = [host for host in (hosts or rows) if host not in absent and host in rows]
        return frozenset(str(rows[host]["uuid"]) for host in left) or None


# ---- what may be in a row


def check_components(components: Iterable[str]) -> None:
    """Raises INVALID_VALUE, as all of these."""
    for component in components:
        if component not in COMPONENTS:
            raise ApiError("INVALID_VALUE", "component", component)


def check_endpoints(endpoints: Iterable[str]) -> None:
    """Spans are not sent to collectors: the original does not either, unless it is configured to."""
    for endpoint in endpoints:
        if endpoint != BUGTOOL:
            raise ApiError("INVALID_VALUE", "endpoint", endpoint)


def check_hosts(known: Mapping[str, object], hosts: Iterable[str]) -> None:
    for host in hosts:
        if host not in known:
            raise ApiError("INVALID_VALUE", "host", host)


def check_attributes(attributes: Mapping[str, str]) -> None:
    for key, value in attributes.items():
        if len(value.encode()) > LONGEST_VALUE or not _KEY.fullmatch(key):
            raise ApiError("INVALID_VALUE", "attributes", f"{key}:{value}")
