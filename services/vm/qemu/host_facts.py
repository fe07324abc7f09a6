"""What the machine is, for a host that runs its VMs on it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psutil

RESERVED = 256 * 2**20
"""Bytes of memory that VMs may not have."""


@dataclass(frozen=True)
class Cpu:
    """`speed` in MHz."""

    count: int
    model: str
    vendor: str
    speed: int
    flags: str


def cpu(text: str | None = None) -> Cpu:
    """From the text of /proc/cpuinfo."""
    text = Path("/proc/cpuinfo").read_text() if text is None else text

    def first(key: str) -> str:
        match = re.search(rf"^{key}\s*:[ \t]*(.*)$", text, re.MULTILINE)
        return match.group(1).strip() if match is not None else ""

    return Cpu(
        count=len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or 1,
        model=first("model name"),
        vendor=first("vendor_id"),
        speed=int(float(first("cpu MHz") or 0)),
        flags=first("flags"),
    )


def memory_total() -> int:
    return int(psutil.virtual_memory().total)


def memory_free() -> int:
    """What a new VM may have."""
    return max(0, int(psutil.virtual_memory().available) - RESERVED)
