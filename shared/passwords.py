"""Local passwords: one line `user:scrypt$<log2 n>$<r>$<p>$<salt>$<key>` for each user, salt and key in base64.

Hashing takes about 50 ms of CPU and 16 MiB on purpose: call it in a thread (it lets go of the interpreter lock).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from functools import cache
from pathlib import Path

_LOG2_N, _R, _P, _SALT_BYTES, _KEY_BYTES = 14, 8, 1, 16, 32
_MAXMEM = 256 * 1024 * 1024


def hash_password(password: str) -> str:
    """The text to keep; another one each time."""
    salt = os.urandom(_SALT_BYTES)
    key = _derive(password, salt, _LOG2_N, _R, _P, _KEY_BYTES)
    return f"scrypt${_LOG2_N}${_R}${_P}${_encode(salt)}${_encode(key)}"


@cache
def _nobody() -> str:
    """Checked for unknown users, so that they take as long as known ones."""
    return hash_password("")


def verify(password: str, stored: str) -> bool:
    """In constant time. Raises `ValueError` when `stored` is not what `hash_password` makes."""
    try:
        kind, log2_n, r, p, salt, key = stored.split("$")
        cost = (int(log2_n), int(r), int(p))
        salt_bytes, key_bytes = base64.b64decode(salt, validate=True), base64.b64decode(key, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("not a password hash of this program") from error
    if kind != "scrypt" or not 1 <= cost[0] <= 20 or not key_bytes:
        raise ValueError(f"cannot check a {kind!r} password hash")
    return hmac.compare_digest(_derive(password, salt_bytes, *cost, len(key_bytes)), key_bytes)


def read(path: Path) -> dict[str, str]:
    """User to hash. Raises `OSError`, or `ValueError` naming the line that is wrong."""
    users: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, separator, stored = line.strip().partition(":")
        if not separator or not user:
            raise ValueError(f"{path}:{number}: expected user:hash")
        users[user] = stored
    return users


def write(path: Path, users: dict[str, str]) -> None:
    """Replaces the file, readable by its owner only; at every moment it is the old one or the new one."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("".join(f"{user}:{stored}\n" for user, stored in users.items()))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def check(path: Path, user: str, password: str) -> bool:
    """Whether this is the user's password. An unknown user takes as long as a wrong password."""
    stored = read(path).get(user)
    matches = verify(password, stored or _nobody())
    return matches and stored is not None


def _derive(password: str, salt: bytes, log2_n: int, r: int, p: int, length: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=1 << log2_n, r=r, p=p, maxmem=_MAXMEM, dklen=length)


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
