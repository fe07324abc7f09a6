"""What a member does not do itself: locks, tasks and placement are in the coordinator's process, over the bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from services.api import emergency, sessions
from services.api.api import Api
from services.api.edge.dispatcher import Caller
from shared.contracts.api import XENAPI, XenApiCall
from shared.datamodel import model
from shared.datamodel.schema import Message
from shared.errors import ApiError

log = logging.getLogger("api.member")

LOGINS: Final = frozenset({"session.login_with_password", "session.slave_login"})
"""Messages that answer with a session of the whole pool."""

ARRIVAL: Final = 5.0
"""Seconds that a new session's row may take to arrive here."""


def passes_on(api: Api, caller: Caller, method: str) -> bool:
    """Whether the call is not even looked at here: it came over the Unix socket or the internal network. `method`: as
    sent.
    """
    if method in emergency.ANSWERED:
        return False
    internal = api.options.internal_address
    return caller.trusted or (bool(internal) and caller.host_header == internal)


def is_coordinators(api: Api, method: str, message: Message, session: str) -> bool:
    """Whether a call that was looked at, and is no look-up, is the coordinator's. Logins with a password are not: they
    are refused here.
    """
    if message.cls == "event" or method in emergency.ANSWERED:
        return False
    if not message.session:
        return message.wire_name == "session.slave_login"
    return not (message.wire_name == "session.logout" and sessions.is_local(api, session))


async def ask(api: Api, caller: Caller, method: str, params: Sequence[Any]) -> Any:
    """The coordinator's answer to the call as it came. Raises `ApiError`."""
    if params and isinstance(params[0], str) and sessions.is_local(api, params[0]):
        return await ask_as_host(api, caller, method, params[1:])
    request = XenApiCall(
        method=method,
        params=list(params),
        trusted=caller.trusted,
        user_agent=caller.user_agent,
        address=caller.address,
        host=caller.host,
    )
    reply = await api.bus.call(XENAPI, request, host=api.uuid_of("host", api.pool()["master"]))
    if reply.error:
        raise ApiError(*reply.error)
    message = model.message(method)
    if message is not None and message.wire_name in LOGINS:
        await arrival(api, "session", reply.value)
    return reply.value


async def ask_as_host(api: Api, caller: Caller, method: str, params: Sequence[Any]) -> Any:
    """For who has no session that the coordinator knows: the call is made in one of this host's own, which ends with
    it. `params`: without a session.
    """
    host = api.store.ref_of_uuid("host", caller.host) or api.host_ref
    own = await ask(api, caller, "session.slave_login", [host, api.pool_secrets.current()])
    try:
        return await ask(api, caller, method, [own, *params])
    finally:
        try:
            await ask(api, caller, "session.logout", [own])
        except ApiError as error:
            log.warning("a session of this host is left to expire: %s", error.code)


async def arrival(api: Api, cls: str, ref: str) -> None:
    """Until this host, too, has a new row, such as a session: its client may use it here at once."""
    try:
        with api.waiters.watching(cls, ref) as changed:
            async with asyncio.timeout(ARRIVAL):
                while api.store.row(cls, ref) is None:
                    changed.clear()
                    await changed.wait()
    except TimeoutError:
        log.warning("a new row of class %s has not arrived yet", cls)
