"""Sessions that read a database opened for them (`services.api.opened_databases`), with the role read-only."""

from __future__ import annotations

from services.api import opened_databases, role_rows, sessions
from services.api.api import Api
from services.api.edge.dispatcher import Caller
from services.api.identity import Identity
from shared.store import Store


async def begin(api: Api, caller: Caller, rows: Store, user: str) -> str:
    """Its reference. `user`: what it is called. Databases of sessions that are no more are closed first."""
    api.opened.keep(lambda session: api.store.row("session", session) is not None)
    granted = tuple(name for name, roles in role_rows.holders().items() if opened_databases.ROLE in roles)
    identity = Identity(user_name=user, auth_user_sid=opened_databases.SID, rbac_permissions=granted)
    session = await sessions.open_session(api, caller, identity, "xapi")
    api.opened.open(session, rows)
    return session
