"""A network namespace for a test: the thread that talks to the kernel enters a new one and dies with it."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNET = 0x40000000


def new_namespace() -> None:
    """Moves the calling thread into a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


def is_root() -> bool:
    return os.geteuid() == 0


def drop_capabilities() -> None:
    """Of the calling thread: capset(2) with nothing in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    empty = (ctypes.c_uint32 * 6)()
    if libc.capset(header, empty):
        raise OSError(ctypes.get_errno(), "capset")
