"""Sessions: rows of class session (volatile), made at login, checked at every call.

A session's reference is the credential. It is random, nothing of it comes from the client, and logs show its digest.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from services.api import clock
from services.api.api import Api
from services.api.edge.dispatcher import Caller
from services.api.failed_logins import Client
from services.api.identity import Identity, identify
from shared.contracts.db import Change, Create, Delete, Update
from shared.datamodel.schema import Message
from shared.errors import ApiError, internal_error
from shared.logs import track_id
from shared.store import NULL

log = logging.getLogger("api.sessions")

REFRESH = 600.0
"""Seconds between two updates of `last_active`."""


def find(api: Api, session: str) -> Mapping[str, Any]:
    """The session's row, or what would be in it if only this process knows it. Raises SESSION_INVALID [ref]."""
    row = api.store.row("session", session) or api.local_sessions.find(session)
    if row is None:
        raise ApiError("SESSION_INVALID", session)
    return row


def is_local(api: Api, session: str) -> bool:
    """Whether only this process knows it. Such a session is not limited, here, and nothing anywhere else."""
    return api.local_sessions.find(session) is not None


def check(api: Api, message: Message, session: str) -> Mapping[str, Any]:
    """Everything about the session that is checked before roles (`wire-protocol` 6.2). Raises SESSION_INVALID,
    HOST_IS_SLAVE.
    """
    row = api.store.row("session", session)
    if row is None:
        return find(api, session)
    api.sessions_used[session] = time.time()
    if not api.is_coordinator and not row["pool"]:
        raise ApiError("HOST_IS_SLAVE", api.coordinator_address)
    if message.pool_internal and not row["pool"]:
        raise internal_error(f'Internal API "{message.wire_name}" call attempted with non-pool (external) session')
    return row


# ---- logging in


async def login(api: Api, caller: Caller, user: str, password: str, originator: str) -> str:
    """A new session of whoever that is. Raises what `identify` raises."""
    try:
        identity = await identify(api, caller, user, password)
    except ApiError as error:
        _note_failure(api, caller, user, originator, error)
        raise
    api.clients.note(caller.user_agent)
    return await open_session(api, caller, identity, originator)


async def open_session(api: Api, caller: Caller, identity: Identity, originator: str = "") -> str:
    """Makes the row; its reference."""
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
    log.info(
        "login",
        extra={"user": identity.user_name, "originator": originator, "from": caller.address, "as": track_id(ref)},
    )
    return ref


async def open_pool_session(api: Api, caller: Caller, host: str) -> str:
    """A session of a host of the pool, which may do everything."""
    return await open_session(api, caller, Identity(user_name=host, host=host, is_local_superuser=True, pool=True))


def check_pool_secret(api: Api, caller: Caller, secret: str, who: str) -> None:
    """Raises SESSION_AUTHENTICATION_FAILED [who, reason] for a secret that is not the pool's."""
    if not api.pool_secrets.accepts(secret):
        error = ApiError("SESSION_AUTHENTICATION_FAILED", who, "The pool secret is wrong.")
        _note_failure(api, caller, "", "", error)
        raise error


async def open_local_session(api: Api, caller: Caller, user: str, password: str) -> str:
    """A session of the superuser that only this process knows; it needs no database.

    Raises SESSION_AUTHENTICATION_FAILED [user, reason].
    """
    if not caller.trusted:
        try:
            await api.authenticator.check(user, password)
        except ApiError as error:
            _note_failure(api, caller, user, "", error)
            raise
    return _local(api, caller, user, pool=False)


def open_local_pool_session(api: Api, caller: Caller, secret: str) -> str:
    """The same for a host that knows the pool secret. Raises SESSION_AUTHENTICATION_FAILED."""
    check_pool_secret(api, caller, secret, "localhost")
    return _local(api, caller, "", pool=True)


def _local(api: Api, caller: Caller, user: str, *, pool: bool) -> str:
    ref = api.local_sessions.open(user, pool=pool)
    log.info("local login", extra={"user": user, "from": caller.address, "as": track_id(ref)})
    return ref


def _note_failure(api: Api, caller: Caller, user: str, originator: str, error: ApiError) -> None:
    """Only proofs that are wrong count as failed logins."""
    if error.code != "SESSION_AUTHENTICATION_FAILED":
        return
    log.warning(
        "a login failed",
        extra={"user": user, "originator": originator, "agent": caller.user_agent, "from": caller.address},
    )
    api.failed_logins.note(Client(user, originator, caller.user_agent, caller.address), time.time())


# ---- the end


async def logout(api: Api, session: str) -> None:
    if not api.local_sessions.close(session):
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
