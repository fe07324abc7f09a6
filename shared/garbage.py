"""Rows and the collector of cyclic garbage: it would look at every one of them again and again, and find nothing.

Rows have no cycles. A look at those of ten thousand VMs takes two tenths of a second, in which nobody is served.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MANY: Final = 5000
"""Rows from which on it matters."""


@contextmanager
def paused() -> Iterator[None]:
    """While rows are loaded nothing is collected: what is made then stays."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def settled() -> None:
    """The process is up: what it is made of stays. A look at that alone takes a tenth of a second."""
    gc.freeze()


def keep(rows: int) -> None:
    """So many rows have come, and will stay: the collector need not look at what is there now."""
    if rows >= MANY:
        gc.freeze()
