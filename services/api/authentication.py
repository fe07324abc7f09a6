"""Who may log in with a password: a local file of scrypt hashes, or PAM. Neither blocks the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from shared import passwords, pool_secret
from shared.errors import ApiError, internal_error

log = logging.getLogger("api.authentication")

THREADS = 8
"""Password checks at once, as upstream's `local_auth_max_threads`."""


class Authenticator(Protocol):
    async def check(self, user: str, password: str) -> None:
        """Raises SESSION_AUTHENTICATION_FAILED [user, reason]."""
        ...

    async def change(self, user: str, password: str) -> None:
        """Raises CHANGE_PASSWORD_REJECTED [reason]."""
        ...


def _refused(user: str) -> ApiError:
    return ApiError("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")


class PasswordFile:
    """One `user:hash` a line, as `shared.passwords` makes them.

    A check costs tens of milliseconds on purpose. Pairs that passed are remembered as keyed digests until the file
    changes, so a client that logs in for every call does not pay each time; failures are never remembered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._key = os.urandom(32)
        self._passed: set[bytes] = set()
        self._stamp: tuple[int, int] = (0, 0)

    async def check(self, user: str, password: str) -> None:
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._passed.clear()
            self._stamp = stamp
        digest = hmac.new(self._key, f"{len(user)}:{user}{password}".encode(), hashlib.sha256).digest()
        if digest in self._passed:
            return
        loop = asyncio.get_running_loop()
        try:
            passed = await loop.run_in_executor(self._threads, passwords.check, self._path, user, password)
        except (OSError, ValueError) as error:
            raise internal_error(f"the password file cannot be used: {error}") from error
        if not passed:
            raise _refused(user)
        self._passed.add(digest)

    def _read_stamp(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise internal_error(f"cannot read the password file: {error.strerror}") from error
        return status.st_mtime_ns, status.st_ino

    async def change(self, user: str, password: str) -> None:
        if not password:
            raise ApiError("CHANGE_PASSWORD_REJECTED", "the new password is empty")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._write, user, password)

    def _write(self, user: str, password: str) -> None:
        users = passwords.read(self._path)
        users[user] = passwords.hash_password(password)
        passwords.write(self._path, users)


class Pam:
    """The host's own accounts, through the PAM service of that name in /etc/pam.d."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="pam")

    async def check(self, user: str, password: str) -> None:
        loop = asyncio.get_running_loop()
        passed, reason = await loop.run_in_executor(self._threads, self._ask, user, password)
        if not passed:
            log.info("PAM refused a login", extra={"user": user, "reason": reason})
            raise _refused(user)

    def _ask(self, user: str, password: str) -> tuple[bool, str]:
        import pam  # loads libpam: only where it is used

        session = pam.pam()
        passed = bool(session.authenticate(user, password, service=self._service, resetcreds=False))
        return passed, str(session.reason)

    async def change(self, user: str, password: str) -> None:
        raise ApiError("CHANGE_PASSWORD_REJECTED", "passwords of system accounts are changed on the host")


class PoolSecrets:
    """The pool's secrets, read again whenever their file has changed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] = (0, 0)
        self._secrets: list[str] = []

    def accepts(self, given: str) -> bool:
        """False without a file. Raises INTERNAL_ERROR for one that cannot be used."""
        return pool_secret.matches(given, self._valid())

    def current(self) -> str:
        """The one to send. Raises INTERNAL_ERROR when there is none."""
        valid = self._valid()
        if not valid:
            raise internal_error("this host does not know the pool secret")
        return valid[0]

    def replace(self, secrets: list[str]) -> None:
        """These count from now on. Blocking. Raises INTERNAL_ERROR."""
        try:
            pool_secret.write(self._file, secrets)
        except OSError as error:
            raise internal_error(f"the pool secret cannot be written: {error}") from error

    @property
    def pending_file(self) -> Path:
        """Has the old and the new secret while they are exchanged. Raises INTERNAL_ERROR."""
        return self._file.with_name(self._file.name + ".pending")

    @property
    def _file(self) -> Path:
        if self._path is None:
            raise internal_error("this host does not know the pool secret")
        return self._path

    def _valid(self) -> list[str]:
        if self._path is None:
            return []
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_ino
            if stamp != self._stamp:
                self._secrets, self._stamp = pool_secret.read(self._path), stamp
        except (OSError, ValueError) as error:
            raise internal_error(f"the pool secret cannot be read: {error}") from error
        return self._secrets


def authenticator(auth: str, password_file: str, pam_service: str) -> Authenticator:
    """`auth`: file | pam. Raises ValueError for anything else."""
    if auth == "file":
        return PasswordFile(Path(password_file))
    if auth == "pam":
        return Pam(pam_service)
    raise ValueError(f"option auth must be file or pam, not {auth!r}")
