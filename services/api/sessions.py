"""Sessions: rows of class session (volatile), made at login, checked at every call."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from services.api import clock
from services.api.api import Api
from services.api.edge.dispatcher import Caller
from shared.contracts.db import Create, Delete, Update
from shared.datamodel.schema import Message
from shared.errors import ApiError, internal_error
from shared.logs import track_id
from shared.store import NULL

log = logging.getLogger("api.sessions")

REFRESH = 600.0
"""Seconds between two updates of `last_active`."""

IDLE_LIMIT = 86400.0


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
    if not api.is_coordinator and not row["pool"]:
        raise ApiError("HOST_IS_SLAVE", api.coordinator_address)
    if message.pool_internal and not row["pool"]:
        raise internal_error(f'Internal API "{message.wire_name}" call attempted with non-pool (external) session')
    return row


async def login(api: Api, caller: Caller, user: str, password: str, originator: str) -> str:
    """A new session of the local superuser; its reference is the credential.

    Raises HOST_IS_SLAVE on a member, before looking at the password; SESSION_AUTHENTICATION_FAILED [user, reason].
    """
    if not caller.trusted:
        if not api.is_coordinator:
            raise ApiError("HOST_IS_SLAVE", api.coordinator_address)
        await api.authenticator.check(user, password)
    elif not api.is_coordinator:
        raise ApiError("HOST_IS_SLAVE", api.coordinator_address)
    ref = f"OpaqueRef:{uuid.uuid4()}"
    fields = {
        "this_host": api.host_ref,
        "this_user": NULL,
        "last_active": clock.now(),
        "validation_time": clock.now(),
        "pool": False,
        "is_local_superuser": True,
        "auth_user_name": user,
        "originator": originator,
    }
    await api.database.transact([Create(cls="session", ref=ref, fields=fields)])
    log.info("login", extra={"user": user, "originator": originator, "from": caller.address, "as": track_id(ref)})
    return ref


async def logout(api: Api, session: str) -> None:
    await api.database.transact([Delete(cls="session", ref=session)])


def stale_activity(api: Api, session: Mapping[str, Any], now: float) -> bool:
    """Whether `last_active` should be written again."""
    return api.is_coordinator and now - clock.seconds(session["last_active"]) > REFRESH


async def touch(api: Api, session: str) -> None:
    await api.database.transact([Update(cls="session", ref=session, fields={"last_active": clock.now()})])


def expired(api: Api, now: float) -> list[str]:
    """Sessions idle for a day without an unfinished task."""
    store = api.store
    return [
        ref
        for ref, row in store.rows("session").items()
        if now - clock.seconds(row["last_active"]) > IDLE_LIMIT
        and not any(task in api.running for task in row["tasks"])
    ]
