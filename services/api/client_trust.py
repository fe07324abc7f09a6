"""Keeps the TLS listeners in step with what the pool says of clients' certificates: its row, and what it trusts."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from services.api.api import Api
from services.api.edge.client_trust import ClientTrust
from services.api.host_side.trust import TrustFolder
from shared.config import ConfigError
from shared.contracts.db import Delta
from shared.contracts.host import Trust
from shared.store import Touched

log = logging.getLogger("api.client_trust")

_FOLLOWED: Final = ("pool", "Certificate")
"""Classes whose rows change when what counts has changed."""


class Listeners(Protocol):
    def trust_clients(self, trust: ClientTrust | None) -> None:
        """Raises `ConfigError`; then nothing has changed."""
        ...


class ClientTrustFollower:
    """Of the coordinator, the only one that lets such clients in. `trusted`: where its authorities are."""

    def __init__(self, api: Api, listeners: Listeners, trusted: TrustFolder) -> None:
        self._api = api
        self._listeners = listeners
        self._trusted = trusted
        self._current: tuple[str, str] | None = None
        """Name and authorities that count now; None: no certificate does."""

    def begin(self) -> None:
        self._api.replica.watch(self._on_commit)
        self._apply()

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        if any(item.cls in _FOLLOWED for item in touched):
            self._apply()

    def _apply(self) -> None:
        try:
            wanted = self._wanted()
            if wanted == self._current:
                return
            trust = None if wanted is None else ClientTrust(wanted[1], wanted[0], self._trusted.is_revoked)
            self._listeners.trust_clients(trust)
            self._current = wanted
        except (OSError, ConfigError) as error:
            log.error("clients cannot log in with certificates: %s", error)
            # What counted before may be just what was taken back.
            self._listeners.trust_clients(None)
            self._current = None

    def _wanted(self) -> tuple[str, str] | None:
        row = next(iter(self._api.store.rows("pool").values()), None)
        if row is None or not row["client_certificate_auth_enabled"]:
            return None
        files = self._trusted.files().files
        authorities = "".join(file.pem.strip() + "\n" for file in files if file.kind is Trust.CA)
        if not authorities:
            raise ConfigError("no authority is installed")
        return str(row["client_certificate_auth_name"]), authorities
