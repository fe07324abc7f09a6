"""A user's name and password to an identity, by the coordinator's directory (`wire-protocol` 6.1)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from services.api.api import Api
from services.api.directory import membership
from services.api.directory import subject_information as info
from services.api.directory.cache import LoginCache
from services.api.directory.host_directory import HostDirectory, Setup
from services.api.directory.plugin import AuthFailure, Plugin, ServiceError, SubjectNotFound
from services.api.identity import Identity
from shared.contracts.db import Delta
from shared.errors import ApiError
from shared.store import Touched

log = logging.getLogger("api.directory")

FAILURE_DELAY: Final = 5.0
"""Seconds that a failure takes, so that passwords cannot be tried fast."""

LONGEST_NAME: Final = 256
LONGEST_PASSWORD: Final = 4096

MESSAGE: Final = "session.login_with_password"

_CACHE_FIELDS: Final = ("ext_auth_cache_enabled", "ext_auth_cache_size", "ext_auth_cache_expiry")


class Limit:
    """So many at once; the number may change while some wait."""

    def __init__(self) -> None:
        self._busy = 0
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def one_of(self, most: int) -> AsyncIterator[None]:
        async with self._freed:
            await self._freed.wait_for(lambda: self._busy < most)
            self._busy += 1
        try:
            yield
        finally:
            async with self._freed:
                self._busy -= 1
                self._freed.notify_all()


class Logins:
    """`failure_delay`: see `FAILURE_DELAY`. Coordinator only."""

    def __init__(self, api: Api, directory: HostDirectory, failure_delay: float = FAILURE_DELAY) -> None:
        self.failure_delay = failure_delay
        self.cache = LoginCache()
        self._api = api
        self._directory = directory
        self._limit = Limit()
        self._seen = self._settings()
        api.replica.watch(self._on_commit)

    async def identify(self, user: str, password: str) -> Identity:
        """Raises SESSION_AUTHENTICATION_FAILED [user, text], SESSION_AUTHORIZATION_FAILED [user, text],
        RBAC_PERMISSION_DENIED or INTERNAL_ERROR [message, text].
        """
        began = time.monotonic()
        try:
            return await self._identify(user, password)
        except ApiError:
            await asyncio.sleep(remaining(self.failure_delay, time.monotonic() - began))
            raise

    async def _identify(self, user: str, password: str) -> Identity:
        if not is_plausible(user, password):
            raise _unauthenticated(user, "the name or the password cannot be anybody's")
        pool = self._api.pool()
        is_cached = bool(pool["ext_auth_cache_enabled"])
        known = await self.cache.find(user, password) if is_cached else None
        if known is not None:
            return known
        epoch = self.cache.epoch
        identity = await self._ask(user, password, int(pool["ext_auth_max_threads"]))
        if is_cached:
            await self.cache.remember(
                user,
                password,
                identity,
                size=pool["ext_auth_cache_size"],
                seconds=pool["ext_auth_cache_expiry"],
                epoch=epoch,
            )
        return identity

    async def _ask(self, user: str, password: str, at_once: int) -> Identity:
        try:
            plugin = await self._directory.plugin()
            async with self._limit.one_of(max(at_once, 1)):
                sid = await plugin.authenticate_username_password(user, password)
                information, groups = await about(plugin, sid)
        except AuthFailure as error:
            log.info("the directory refused a login", extra={"user": user, "reason": str(error)})
            raise _unauthenticated(user, "The directory does not accept the name and password.") from error
        except SubjectNotFound as error:
            raise _unauthorised(user, str(error)) from error
        except ServiceError as error:
            log.warning("the directory could not be asked about a login: %s", error.message, extra={"user": user})
            raise ApiError("INTERNAL_ERROR", MESSAGE, error.message) from error
        return self._identity(user, sid, information, groups)

    def _identity(self, user: str, sid: str, information: Mapping[str, str], groups: list[str]) -> Identity:
        reason = info.suspension(information)
        if reason:
            raise _unauthorised(user, reason)
        store = self._api.store
        subjects = membership.subjects_of(store, [sid, *groups])
        if not subjects:
            raise _unauthorised(user, "The user is in none of the pool's subjects.")
        roles = membership.roles_of(store, subjects)
        if not roles:
            raise ApiError("RBAC_PERMISSION_DENIED", MESSAGE, f"No role has been given to {user}.")
        return Identity(
            user_name=information[info.NAME],
            subject=subjects[0],
            auth_user_sid=sid,
            rbac_permissions=membership.permissions_of(roles),
        )

    # ---- what makes remembered logins worthless

    def _settings(self) -> tuple[Setup | None, list[Any]]:
        pool = next(iter(self._api.store.rows("pool").values()), None)
        return self._directory.wanted, [pool[name] for name in _CACHE_FIELDS] if pool is not None else []

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        classes = {item.cls for item in touched}
        if "subject" in classes:
            self.cache.clear()
        if not classes.isdisjoint(("host", "pool")):
            before, self._seen = self._seen, self._settings()
            if before != self._seen:
                self.cache.clear()


async def about(plugin: Plugin, sid: str) -> tuple[dict[str, str], list[str]]:
    """What the directory tells about a user, and all its groups. Raises `SubjectNotFound`, `ServiceError`."""
    information = await plugin.query_subject_information(sid)
    return information, await plugin.query_group_membership(sid)


def remaining(delay: float, elapsed: float) -> float:
    """Seconds until a failure is told: when a multiple of `delay` has passed. How long the directory took, which is
    longer for names that it knows, does not show.
    """
    return delay - elapsed % delay if delay > 0 else 0.0


def is_plausible(user: str, password: str) -> bool:
    """Whether the directory is asked at all. A bind with an empty password is one as nobody, for LDAP servers, and
    succeeds; a name that holds a zero character is another name for some.
    """
    texts = (user, password)
    if not user.strip() or not password or len(user) > LONGEST_NAME or len(password) > LONGEST_PASSWORD:
        return False
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in user) or "\x00" in password:
        return False
    return not any("\ud800" <= char <= "\udfff" for text in texts for char in text)


def _unauthenticated(user: str, text: str) -> ApiError:
    return ApiError("SESSION_AUTHENTICATION_FAILED", user, text)


def _unauthorised(user: str, text: str) -> ApiError:
    return ApiError("SESSION_AUTHORIZATION_FAILED", user, text)
