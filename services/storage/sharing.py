"""Disks that several VMs write to at the same time, perhaps on several hosts."""

from __future__ import annotations

import asyncio
import os

from services.storage.plugins.interface import Implementation


def can_be_shared(backend: Implementation) -> bool:
    """Whoever writes to an image of another format keeps tables in memory that nobody else may change."""
    return backend.format in ("raw", "none")


async def goes_direct(backend: Implementation) -> bool:
    """Whether a disk can be read and written past this host's page cache, which knows nothing of what others write.

    Some file systems cannot (those in memory); they are not shared between hosts either.
    """
    return backend.kind in ("file", "block") and await asyncio.to_thread(_opens, backend.path)


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError:
        return False
    return True
