"""Names of Linux network devices, at most 15 bytes, and the marks (`ifalias`) that say what a device is for."""

from __future__ import annotations

import base64
import hashlib
import re

LENGTH = 15
"""Bytes; IFNAMSIZ without its final zero."""

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


def bridge_device(prefix: str, bridge: str) -> str:
    """The Linux name of a bridge: prefix and name; with a hash where that is too long or has odd characters."""
    name = prefix + bridge
    if len(name) <= LENGTH and _PLAIN.fullmatch(name) and name not in (".", ".."):
        return name
    plain = re.sub(r"[^A-Za-z0-9]", "", bridge)[: LENGTH - len(prefix) - 6]
    return f"{prefix}{plain}-{_hash(bridge, 5)}"


def tap_device(prefix: str, vm: str, device: str) -> str:
    """The Linux name of the tap of a VM's (uuid) VIF number `device`."""
    return f"{prefix}t{_hash(f'{vm}/{device}', LENGTH - len(prefix) - 1)}"


def marks(prefix: str) -> str:
    """What the mark of every device of that prefix begins with."""
    return f"xapi:{prefix}:"


def bridge_mark(prefix: str, bridge: str) -> str:
    return f"{marks(prefix)}bridge:{bridge}"


def tap_mark(prefix: str, vm: str, device: str) -> str:
    return f"{marks(prefix)}tap:{vm}:{device}"


def tap_of(prefix: str, mark: str) -> tuple[str, str] | None:
    """VM and device number that a mark names; None when it is not that of a tap of this prefix."""
    start = f"{marks(prefix)}tap:"
    if not mark.startswith(start):
        return None
    vm, _, device = mark.removeprefix(start).partition(":")
    return vm, device


def _hash(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:length]
