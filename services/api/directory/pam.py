"""The plug-in for users of the host itself: passwords by PAM, names and groups by the name service switch.

Identifiers are `u<uid>` and `g<gid>`. All look-ups block (they may ask a network service), so they run in threads.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from services.api.directory import subject_information as info
from services.api.directory.plugin import AuthFailure, Configuration, ServiceError, SubjectNotFound, Tag

THREADS: Final = 8
DAY: Final = 86400.0
PATIENCE: Final = 60.0

Result = TypeVar("Result")


class PamPlugin:
    """See `Plugin`. `service`: the PAM service, in /etc/pam.d."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="pam-directory")

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise ServiceError(Tag.E_UNAVAILABLE, "PAM or the name service takes too long to answer") from error

    async def authenticate_username_password(self, name: str, password: str) -> str:
        return await self._in_thread(lambda: self._authenticate(name, password))

    def _authenticate(self, name: str, password: str) -> str:
        import pam  # loads libpam: only where it is used

        attempt = pam.pam()
        if not attempt.authenticate(name, password, service=self._service, resetcreds=False):
            raise AuthFailure(str(attempt.reason))
        try:
            return f"u{_user_named(name).pw_uid}"
        except SubjectNotFound as error:
            raise AuthFailure(str(error)) from error

    async def authenticate_ticket(self, ticket: str) -> str:
        raise AuthFailure("PAM knows no tickets")

    async def get_subject_identifier(self, name: str) -> str:
        return await self._in_thread(lambda: _identifier(name))

    async def query_subject_information(self, identifier: str) -> dict[str, str]:
        return await self._in_thread(lambda: _information(identifier))

    async def query_group_membership(self, identifier: str) -> list[str]:
        return await self._in_thread(lambda: _groups(identifier))

    async def on_enable(self, config: Configuration) -> None:
        if config:
            raise ServiceError(Tag.E_GENERIC, f"PAM has no configuration keys: {', '.join(sorted(config))}")
        if not os.path.exists(f"/etc/pam.d/{self._service}"):  # noqa: ASYNC240 (a local file system)
            raise ServiceError(Tag.E_GENERIC, f"there is no PAM service /etc/pam.d/{self._service}")

    async def on_disable(self, config: Configuration) -> None:
        """The host's users stay."""

    async def on_xapi_initialize(self, system_boot: bool) -> None:
        """PAM needs no connection."""

    async def on_xapi_exit(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def set_ldaps(self, ldaps: bool, force: bool) -> dict[str, str]:
        raise ServiceError(Tag.E_GENERIC, "PAM is not asked over LDAP")


def _user_named(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except (KeyError, ValueError, UnicodeError) as error:
        raise SubjectNotFound(f"this host has no user {name[:100]!r}") from error


def _identifier(name: str) -> str:
    try:
        return f"u{_user_named(name).pw_uid}"
    except SubjectNotFound:
        try:
            return f"g{grp.getgrnam(name).gr_gid}"
        except (KeyError, ValueError, UnicodeError) as error:
            raise SubjectNotFound(f"this host has no user or group {name[:100]!r}") from error


def _user(identifier: str) -> pwd.struct_passwd | None:
    """None if that is a group's."""
    kind, digits = identifier[:1], identifier[1:]
    if kind in ("u", "g") and digits.isascii() and digits.isdecimal() and len(digits) <= 10:
        try:
            return pwd.getpwuid(int(digits)) if kind == "u" else None
        except (KeyError, OverflowError):
            pass
    if kind == "g":
        return None
    raise SubjectNotFound(f"this host has no user {identifier[:100]!r}")


def _group(identifier: str) -> grp.struct_group:
    try:
        return grp.getgrgid(int(identifier[1:]))
    except (KeyError, ValueError, OverflowError) as error:
        raise SubjectNotFound(f"this host has no group {identifier[:100]!r}") from error


def _information(identifier: str) -> dict[str, str]:
    user = _user(identifier)
    if user is None:
        group = _group(identifier)
        found = {info.NAME: group.gr_name, info.GID: str(group.gr_gid), info.IS_GROUP: "true"}
        return {**found, info.SID: f"g{group.gr_gid}"}
    state = account_state(_shadow(user.pw_name), time.time())
    return {
        info.NAME: user.pw_name,
        info.DISPLAY_NAME: user.pw_gecos.partition(",")[0] or user.pw_name,
        info.GECOS: user.pw_gecos,
        info.UID: str(user.pw_uid),
        info.GID: str(user.pw_gid),
        info.SID: f"u{user.pw_uid}",
        info.IS_GROUP: "false",
        **state,
    }


def _groups(identifier: str) -> list[str]:
    """Groups have no groups here."""
    user = _user(identifier)
    if user is None:
        _group(identifier)
        return []
    return [f"g{gid}" for gid in os.getgrouplist(user.pw_name, user.pw_gid)]


def _shadow(name: str) -> list[str]:
    """The fields of the user's line in the shadow database; [] if it has none, or only the administrator may see it."""
    command = ["getent", "shadow", "--", name]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(Tag.E_UNAVAILABLE, f"the shadow database cannot be read: {error}") from error
    return done.stdout.decode("utf-8", "replace").strip().split(":") if done.returncode == 0 else []


def account_state(shadow: list[str], now: float) -> dict[str, str]:
    """By shadow(5). `shadow`: name, password, day of the last change, ..., [4] longest age, [7] end of the account. An
    account without an entry was let in by PAM, which is all there is to know.
    """
    today = now / DAY
    fields = [*shadow, *[""] * 9]
    changed, longest, expires = (int(fields[n]) if fields[n].isdecimal() else None for n in (2, 4, 7))
    is_old = changed is not None and longest is not None and today > changed + longest
    return {
        info.ACCOUNT_DISABLED: "false",
        info.ACCOUNT_EXPIRED: info.flag(expires is not None and today >= expires),
        info.ACCOUNT_LOCKED: info.flag(fields[1].startswith("!")),
        info.PASSWORD_EXPIRED: info.flag(changed == 0 or is_old),
    }
