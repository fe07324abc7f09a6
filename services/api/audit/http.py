"""What the audit log says about requests that are no calls."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from services.api.api import Api
from services.api.audit.calls import DENIED, host_name, outcome, who
from services.api.audit.line import LOCAL_SUPERUSER, NOBODY, Entry, Kind, Who
from services.api.edge.dispatcher import (
    Authenticator,
    Basic,
    Caller,
    Credential,
    HttpRefusal,
    PoolSecret,
    Session,
    Trusted,
)
from shared.errors import ApiError, internal_error

QUIET: Final = frozenset({"http/rrd_updates", "http/post_remote_db_access", "http/post_remote_db_access_v2"})
"""Requests that come every few seconds."""

STRANGERS: Final = frozenset({"SESSION_INVALID", "SESSION_AUTHENTICATION_FAILED"})
"""How requests fail of which there may be any number, from anybody."""


class Audited:
    """An authenticator that notes who used which handler, and how that ended."""

    def __init__(self, api: Api, authenticator: Authenticator) -> None:
        self._api = api
        self._inner = authenticator

    @asynccontextmanager
    async def session(self, caller: Caller, credential: Credential, permission: str) -> AsyncIterator[str]:
        asked = self._claimed(credential)
        error: ApiError | None = None
        try:
            async with self._inner.session(caller, credential, permission) as session:
                if session:
                    asked = who(self._api, session)
                yield session
        except ApiError as problem:
            error = problem
            raise
        except HttpRefusal as problem:
            error = ApiError("INTERNAL_ERROR", f"HTTP {problem.status}") if problem.status >= 400 else None
            raise
        except Exception as problem:
            error = internal_error(f"{type(problem).__name__}: {problem}")
            raise
        finally:
            if permission not in QUIET and (error is None or error.code not in STRANGERS):
                self._note(caller, permission, asked, error)

    def _claimed(self, credential: Credential) -> Who:
        """Who it says it is, as long as nobody has found out."""
        match credential:
            case Session(ref):
                return who(self._api, ref)
            case Basic(user, _):
                return Who("", "", user)
            case PoolSecret() | Trusted():
                return Who("", LOCAL_SUPERUSER, "")
            case _:
                return NOBODY

    def _note(self, caller: Caller, permission: str, asked: Who, error: ApiError | None) -> None:
        entry = Entry(
            at=time.time(),
            host=host_name(self._api, caller),
            address=caller.address,
            task=permission,
            who=asked,
            allowed=error is None or error.code != DENIED,
            result=outcome(error),
            kind=Kind.HTTP,
            action=permission,
        )
        self._api.audit.note(entry.line())
