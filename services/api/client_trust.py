"""Keeps the TLS listeners in step with what the pool's row says of clients' certificates."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from services.api.api import Api
from services.api.edge.client_trust import ClientTrust
from shared.config import ConfigError
from shared.contracts.db import Delta
from shared.store import Touched

log = logging.getLogger("api.client_trust")


class Listeners(Protocol):
    def trust_clients(self, trust: ClientTrust | None) -> None:
        """Raises `ConfigError`."""
        ...


class ClientTrustFollower:
    """Of the coordinator, the only one that lets such clients in."""

    def __init__(self, api: Api, listeners: Listeners) -> None:
        self._api = api
        self._listeners = listeners
        self._wanted: tuple[bool, str] = (False, "")

    def begin(self) -> None:
        self._api.replica.watch(self._on_commit)
        self._apply()

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        if any(item.cls == "pool" for item in touched):
            self._apply()

    def _apply(self) -> None:
        row = next(iter(self._api.store.rows("pool").values()), None)
        if row is None:
            return
        wanted = bool(row["client_certificate_auth_enabled"]), str(row["client_certificate_auth_name"])
        if wanted == self._wanted:
            return
        self._wanted = wanted
        enabled, name = wanted
        try:
            self._listeners.trust_clients(ClientTrust(self._authorities(), name) if enabled else None)
        except (OSError, ConfigError) as error:
            # Nobody gets in who should not: certificates that counted before count no longer.
            self._listeners.trust_clients(None)
            log.error("clients cannot log in with certificates: %s", error)

    def _authorities(self) -> str:
        path = self._api.options.client_authorities
        if not path:
            raise ConfigError("no option client_authorities says who may sign them")
        return Path(path).read_text()
