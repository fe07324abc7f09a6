"""The size of a file system, and what is left of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Space(NamedTuple):
    """Bytes; `free`: for who has no privileges."""

    total: int
    free: int


def space_of(path: Path | str) -> Space:
    """Of the file system that the path is on. Blocks. Raises OSError."""
    found = os.statvfs(path)
    return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
