"""Messages of class pool about clients that log in with a certificate. The TLS listeners follow the pool's row."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Change, Delete, Update


@operation("pool.enable_client_certificate_auth")
async def enable(call: Call, self: str, name: str) -> None:
    """`name`: what the certificates must be made out to. Which authorities may sign them is the host's setting."""
    existing(call.store, "pool", self)
    fields = {"client_certificate_auth_enabled": True, "client_certificate_auth_name": name}
    await call.transact([Update(cls="pool", ref=self, fields=fields)])


@operation("pool.disable_client_certificate_auth")
async def disable(call: Call, self: str) -> None:
    """Whoever logged in with a certificate is logged out."""
    existing(call.store, "pool", self)
    fields = {"client_certificate_auth_enabled": False, "client_certificate_auth_name": ""}
    changes: list[Change] = [Update(cls="pool", ref=self, fields=fields)]
    theirs = [ref for ref, row in call.store.rows("session").items() if row["client_certificate"]]
    changes += [Delete(cls="session", ref=ref) for ref in theirs]
    await call.transact(changes)
