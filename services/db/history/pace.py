"""Work in a thread that leaves the event loop its turn: a thread that computes would have it wait 5 ms each time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

Item = TypeVar("Item")

REST: Final = 0.0002
"""Seconds; long enough for the loop's thread to be woken and take over."""


def slowly(items: Iterable[Item], slice_: int) -> Iterator[Item]:
    """The items, with a rest after so many of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % slice_ == 0:
            time.sleep(REST)
