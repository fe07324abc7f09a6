"""Disks that calls make or remove just now, so that a scan of their SR does not judge by half of the story."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.turns import Turns


class DisksInMotion:
    """A scan may or may not have seen a disk that was made or removed while it ran: it says nothing about that disk.

    Disks are named by uuid. Only the coordinator makes and removes disks, so it is enough to know it here.
    """

    def __init__(self) -> None:
        self._by_task: dict[str, set[str]] = {}
        self._scans: list[set[str]] = []
        self._turns = Turns()

    def move(self, task: str, disk: str) -> None:
        """The task makes or removes the disk, from now until it has ended."""
        self._by_task.setdefault(task, set()).add(disk)
        for scan in self._scans:
            scan.add(disk)

    def ended(self, task: str) -> None:
        self._by_task.pop(task, None)

    @asynccontextmanager
    async def scan(self, sr: str) -> AsyncIterator[set[str]]:
        """One scan of an SR at a time. Gives the disks in motion since it began, which grow while it lasts."""
        async with self._turns.of(sr):
            moving = {disk for disks in self._by_task.values() for disk in disks}
            self._scans.append(moving)
            try:
                yield moving
            finally:
                self._scans = [scan for scan in self._scans if scan is not moving]
