"""Who a caller is: what a session is made from (`wire-protocol` 6.1).

Whoever finds that out, be it a password, a certificate or a directory, describes it as an `Identity`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from services.api import role_rows
from services.api.api import Api
from services.api.edge.dispatcher import Caller
from shared.datamodel.roles import CLIENT_CERT
from shared.errors import ApiError
from shared.store import NULL

ROOT: Final = "root"
"""Whom no directory is asked about."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a session row says of its user.

    `host`: reference, "" for the one that answers. `is_local_superuser`: no role is asked for. `pool`: it is a host of
    the pool. `subject`, `auth_user_sid`: of the directory. `rbac_permissions`: all it may do, worked out at login.
    `client_certificate`: it proved itself with one.
    """

    user_name: str
    host: str = ""
    is_local_superuser: bool = False
    pool: bool = False
    client_certificate: bool = False
    subject: str = NULL
    auth_user_sid: str = ""
    rbac_permissions: tuple[str, ...] = ()


async def identify(api: Api, caller: Caller, user: str, password: str) -> Identity:
    """Who logs in with that password, or with something better.

    The Unix socket is proof enough, and so is a certificate. Raises HOST_IS_SLAVE on a member, before looking at the
    password; SESSION_AUTHENTICATION_FAILED [user, reason].
    """
    if caller.trusted:
        return Identity(user_name=user, is_local_superuser=True)
    if is_certified(api, caller):
        return certified(user)
    if not api.is_coordinator:
        raise ApiError("HOST_IS_SLAVE", api.coordinator_address)
    if user != ROOT and api.directory.is_on:
        return await api.directory.logins.identify(user, password)
    await api.authenticator.check(user, password)
    return Identity(user_name=user, is_local_superuser=True)


def is_certified(api: Api, caller: Caller) -> bool:
    """Whether the client's certificate still counts: the connection may be older than the pool's settings."""
    return caller.certificate and api.is_coordinator and bool(api.pool()["client_certificate_auth_enabled"])


def certified(user: str) -> Identity:
    """A client that is known by its certificate, under whatever name it gives."""
    granted = tuple(name for name, roles in role_rows.holders().items() if CLIENT_CERT in roles)
    return Identity(user_name=user, client_certificate=True, rbac_permissions=granted)
