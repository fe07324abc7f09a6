"""The secret by which hosts of a pool know each other: one a line, at least 37 letters, digits, `-` and `/`.

A host sends the first and accepts all, so that a new one can be brought to every host before the old one goes.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SHORTEST: Final = 37
_LENGTH: Final = 64
_ALPHABET: Final = string.ascii_letters + string.digits + "-/"
_VALID: Final = re.compile(rf"[A-Za-z0-9/-]{{{SHORTEST},}}")


def generate() -> str:
    """A new one; nobody guesses it."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def is_valid(secret: str) -> bool:
    return _VALID.fullmatch(secret) is not None


def read(path: Path) -> list[str]:
    """Those that count. Raises `OSError`, or `ValueError` naming the line that is none; never the secret."""
    found = path.read_text().split("\n")
    for number, line in enumerate(found, 1):
        if line and not is_valid(line):
            raise ValueError(f"{path}:{number}: not a pool secret")
    return [line for line in found if line]


def write(path: Path, found: Iterable[str]) -> None:
    """Replaces the file, readable by its owner only; at every moment it is the old one or the new one."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("".join(f"{secret}\n" for secret in found))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def matches(given: str, valid: Iterable[str]) -> bool:
    """Whether it is one of them. The time it takes does not tell how much of it is right, nor which one it is."""
    offered = given.encode("utf-8", "surrogatepass")
    return any([hmac.compare_digest(offered, secret.encode()) for secret in valid])
