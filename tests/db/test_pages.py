"""Which memory is put into huge pages before a fork."""

from __future__ import annotations

import os

import pytest

from services.db import pages
from services.db.child import Child

SMAPS = """\
555500000000-555500600000 r-xp 00000000 fe:00 123                        /usr/bin/python3.11
Size:               6144 kB
Rss:                6144 kB
555501100000-555501900000 rw-p 00000000 00:00 0                          [heap]
Size:               8192 kB
Rss:                8000 kB
7f0000000000-7f0000800000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                  64 kB
7f0001000000-7f0001100000 rw-p 00000000 00:00 0
Size:               1024 kB
Rss:                1024 kB
7f0002000000-7f0002400000 rw-p 00000000 00:00 0 
Size:               4096 kB
Rss:                2048 kB
7f0003000000-7f0003400000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
Size:               4096 kB
Rss:                4096 kB
"""  # noqa: W291 (as the kernel has it)


def test_private_memory_in_use_is_taken_as_far_as_huge_pages_fit() -> None:
    heap, arena = pages.full(SMAPS.splitlines())
    assert heap == (0x555501200000, 0x555501800000)
    assert arena == (0x7F0002000000, 0x7F0002400000)


async def test_memory_is_the_same_afterwards_here_and_in_the_child() -> None:
    rows = [str(number) * 20 for number in range(200_000)]
    wanted = hash(tuple(rows))
    await pages.prepare_fork()
    child = Child(lambda: os._exit(0 if hash(tuple(rows)) == wanted else 3))
    assert await child.wait() == 0
    assert hash(tuple(rows)) == wanted


async def test_a_kernel_that_refuses_is_put_up_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_COLLAPSE", 12345)
    await pages.prepare_fork()
