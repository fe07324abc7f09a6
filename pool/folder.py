"""The pool's folder: one command at a time in it, its password, its `env` file."""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pool import roles
from pool.configuration import pool_secret_file, users_file
from pool.plan import Plan, socket_path
from shared import passwords, pool_secret

USER = "root"


class FolderError(Exception):
    """The folder cannot be used; the text says why."""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Holds the folder's lock. Raises `FolderError` when another command has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise FolderError(f"cannot write in {directory}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderError(f"another command is starting or stopping the pool in {directory}; try again") from error
        yield


def password(directory: Path) -> str:
    """The pool's password: made at its first start, then kept."""
    path = directory / "password"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        made = secrets.token_urlsafe(12)
    passwords.write(users_file(directory), {USER: passwords.hash_password(made)})
    write_private(path, made + "\n")
    return made


def share_pool_secret(directory: Path, groups: Iterable[str], make: Callable[[], str] = pool_secret.generate) -> None:
    """Every host has the pool's secrets in a file of its own: those that another host has, or a new one.

    `make`: gives the new one. Raises `FolderError` for a file that holds none.
    """
    files = [pool_secret_file(directory, group) for group in groups]
    missing = [path for path in files if not path.exists()]
    if missing:
        known = [path for path in files if path not in missing]
        try:
            found = pool_secret.read(known[0]) if known else [make()]
        except ValueError as error:
            raise FolderError(str(error)) from error
        for path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            pool_secret.write(path, found)


def env(directory: Path, plan: Plan) -> dict[str, str]:
    """What a client needs, by the names that scripts rely on. Passwords that PAM checks are not ours to know."""
    coordinator = roles.coordinator(directory, plan)
    return {
        "XAPI_URL": plan.url(coordinator),
        "XAPI_USER": USER,
        **({"XAPI_PASSWORD": password(directory)} if plan.settings.auth == "file" else {}),
        "XAPI_COORDINATOR": coordinator.address,
        "XAPI_HOSTS": " ".join(host.address for host in plan.hosts),
        "XE_SOCKET": str(socket_path(directory, coordinator.name)),
    }


def write_env(directory: Path, plan: Plan) -> None:
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in env(directory, plan).items()]
    write_private(directory / "env", "".join(lines))


def write_private(path: Path, text: str) -> None:
    """Replaces a file that only its owner can read."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)
