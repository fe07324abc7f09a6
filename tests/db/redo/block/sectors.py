"""A disk that writes whole sectors in any order: every state that a power cut can leave, one by one."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

from services.db.disk import Disk

SECTOR = 512


class SectorDisk(Disk):
    """Of one file. `stable`: its bytes as last synced; `versions`: of a sector, what was written to it since.

    `on_moment` is called whenever a power cut would leave something new: after each write and each sync.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_moment: Callable[[], None] | None = None
        self.stable = path.read_bytes() if path.exists() else b""
        self.versions: dict[int, list[bytes]] = {}
        self.syncs = 0

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        count = super().write(descriptor, data, offset)
        for sector in range(offset // SECTOR, (offset + count - 1) // SECTOR + 1):
            now = os.pread(descriptor, SECTOR, sector * SECTOR)
            self.versions.setdefault(sector, []).append(now)
        self._moment()
        return count

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.syncs += 1
        self.stable = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        self.versions.clear()
        self._moment()

    def _moment(self) -> None:
        if self.on_moment is not None:
            self.on_moment()

    def states(self, limit: int, seed: int) -> Iterator[bytes]:
        """Of the whole file: each dirty sector as it was or as it became, all combinations; where those are more than
        `limit`, so many of them by chance, with nothing and everything written among them.
        """
        choices = [
            [self.stable[sector * SECTOR : (sector + 1) * SECTOR], *versions]
            for sector, versions in sorted(self.versions.items())
        ]
        if prod(map(len, choices)) <= limit:
            combinations: Iterator[tuple[bytes, ...]] = itertools.product(*choices)
        else:
            rng = random.Random(seed)
            some = (tuple(rng.choice(choice) for choice in choices) for _ in range(limit - 2))
            ends = [tuple(choice[0] for choice in choices), tuple(choice[-1] for choice in choices)]
            combinations = itertools.chain(ends, some)
        for combination in combinations:
            image = bytearray(self.stable)
            for sector, content in zip(sorted(self.versions), combination, strict=True):
                image[sector * SECTOR : sector * SECTOR + len(content)] = content
            yield bytes(image)
