"""The process's memory in huge pages, before it is forked.

A fork copies page tables while nobody is served: some 5 to 15 ms with 70,000 rows, and a tenth of it with huge pages.
The pages that are written to afterwards become small ones, so it is done before each fork, in a thread. A kernel that
cannot do it (before 6.1, or told not to) refuses: then forks take as long as they do.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

log = logging.getLogger("db.pages")

HUGE: Final = 2 * 1024 * 1024
"""Bytes. On machines with larger ones nothing is gained, and nothing lost."""

_COLLAPSE: Final = 25
"""MADV_COLLAPSE, <linux/mman.h>."""

_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)")
_RESIDENT: Final = re.compile(r"Rss: +(\d+) kB")


def full(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Begin and end of the parts of private memory that huge pages fit into, of mappings that are in use for the most.

    `smaps`: lines of `/proc/<pid>/smaps`. Stacks of threads, mostly empty, would only grow.
    """
    begin = end = 0
    for line in smaps:
        if (mapping := _MAPPING.match(line)) is not None:
            wanted = mapping[3] == "rw-p" and mapping[4] == "0" and mapping[5] in ("", "[heap]")
            begin, end = (int(mapping[1], 16), int(mapping[2], 16)) if wanted else (0, 0)
        elif end and (resident := _RESIDENT.match(line)) is not None:
            first, last = -(-begin // HUGE) * HUGE, end // HUGE * HUGE
            if first < last and int(resident[1]) * 1024 * 2 >= end - begin:
                yield first, last


def collapse() -> None:
    """Takes some tenths of a second; never raises."""
    try:
        parts = list(full(Path("/proc/self/smaps").read_text().splitlines()))
    except OSError as error:
        log.debug("the memory's layout cannot be read: %s", error)
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    for begin, end in parts:
        if madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _COLLAPSE):
            log.debug("no huge pages at %x: %s", begin, os.strerror(ctypes.get_errno()))


async def prepare_fork() -> None:
    """Transactions go on meanwhile."""
    await asyncio.to_thread(collapse)
