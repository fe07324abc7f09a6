"""Sessions: rows of class session (volatile), made at login, checked at every call."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from services.api import clock
from services.api.api import Api
from services.api.edge.dispatcher import Caller
from services.api.identity import Identity, identify
from shared.contracts.db import Change, Create, Delete, Update
from shared.datamodel.schema import Message
from shared.errors import ApiError, internal_error
from shared.logs import track_id
from shared.store import NULL, Store

log = logging.getLogger("api.sessions")

REFRESH = 600.0
"""Seconds between two updates of `last_active`."""

IDLE_LIMIT = 86400.0

LIMITS: Final = {"user": 500, "originator": 500, "root": 400, "pool": 400}
"""Sessions of one user other than root, of root with one originator, of root without any, of hosts."""


def find(api: Api, session: str) -> Mapping[str, Any]:
    """The session's row. Raises SESSION_INVALID [ref]."""
    row = api.store.row("session", session)
    if row is None:
        raise ApiError("SESSION_INVALID", session)
    return row


def check(api: Api, message: Message, session: str) -> Mapping[str, Any]:
    """Everything about the session that is checked before roles (`wire-protocol` 6.2). Raises SESSION_INVALID,
    HOST_IS_SLAVE.
    """
    row = find(api, session)
    api.sessions_used[session] = time.time()
    if not api.is_coordinator and not row["pool"]:
        raise ApiError("HOST_IS_SLAVE", api.coordinator_address)
    if message.pool_internal and not row["pool"]:
        raise internal_error(f'Internal API "{message.wire_name}" call attempted with non-pool (external) session')
    return row


async def login(api: Api, caller: Caller, user: str, password: str, originator: str) -> str:
    """A new session of whoever that is; its reference is the credential. Raises what `identify` raises."""
    return await open_session(api, caller, await identify(api, caller, user, password), originator)


async def open_session(api: Api, caller: Caller, identity: Identity, originator: str = "") -> str:
    """Makes the row. Nothing of the reference comes from the client, so nobody can choose or guess it."""
    ref = f"OpaqueRef:{uuid.uuid4()}"
    fields = {
        "this_host": identity.host or api.store.ref_of_uuid("host", caller.host) or api.host_ref,
        "this_user": NULL,
        "last_active": clock.now(),
        "validation_time": clock.now(),
        "pool": identity.pool,
        "is_local_superuser": identity.is_local_superuser,
        "subject": identity.subject,
        "auth_user_sid": identity.auth_user_sid,
        "auth_user_name": identity.user_name,
        "rbac_permissions": list(identity.rbac_permissions),
        "originator": originator,
        "client_certificate": identity.client_certificate,
    }
    await api.database.transact([Create(cls="session", ref=ref, fields=fields)])
    api.clients.note(caller.user_agent)
    log.info(
        "login",
        extra={"user": identity.user_name, "originator": originator, "from": caller.address, "as": track_id(ref)},
    )
    return ref


async def logout(api: Api, session: str) -> None:
    await api.database.transact([Delete(cls="session", ref=session)])


def in_use(api: Api, now: float) -> list[Change]:
    """Writes `last_active` of sessions that were used since the last time, unless it is fresh enough."""
    used, api.sessions_used = api.sessions_used, {}
    store = api.store
    return [
        Update(cls="session", ref=ref, fields={"last_active": clock.stamp(at)})
        for ref, at in used.items()
        if (row := store.row("session", ref)) is not None and now - clock.seconds(row["last_active"]) > REFRESH
    ]


def expired(api: Api, now: float) -> list[str]:
    """Sessions idle for a day without an unfinished task."""
    store = api.store

    def is_busy(row: Mapping[str, Any]) -> bool:
        rows = (store.row("task", ref) for ref in row["tasks"])
        return any(task is not None and task["status"] == "pending" for task in rows)

    rows = store.rows("session").items()
    return [ref for ref, row in rows if now - clock.seconds(row["last_active"]) > IDLE_LIMIT and not is_busy(row)]


def surplus(store: Store) -> list[str]:
    """Sessions above the limits (`wire-protocol` 6.3): those idle longest."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for ref, row in store.rows("session").items():
        groups.setdefault(_group(row), []).append((row["last_active"], ref))
    gone: list[str] = []
    for (kind, _), members in groups.items():
        gone += [ref for _, ref in sorted(members)[: max(0, len(members) - LIMITS[kind])]]
    return gone


def _group(session: Mapping[str, Any]) -> tuple[str, str]:
    """What a session counts against: a key of `LIMITS`, and whose."""
    if session["pool"]:
        return "pool", ""
    if not session["is_local_superuser"]:
        return "user", session["auth_user_name"]
    return ("originator", session["originator"]) if session["originator"] else ("root", "")
