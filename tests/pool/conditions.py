"""Waiting for a fact, for tests of processes that nothing announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(what: str, look: Callable[[], Found | None], timeout: float = 60.0) -> Found:
    """The first true value of `look`. Fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)
    return found
