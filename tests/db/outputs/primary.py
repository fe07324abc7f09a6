"""The parts of the database process that files are written by and read for, on a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from services.db.committer import Committer
from services.db.disk import Disk
from services.db.outputs import start
from services.db.outputs.conf import Block
from services.db.outputs.flusher import Flusher
from services.db.outputs.start import Begun
from services.db.recovery import restore
from services.db.redo.interface import RedoLog
from shared.contracts.db import Change, Committed, Delta, Transact
from shared.store import Store
from tests.db.redo.backends import Open, open_file

BOOT = "boot"


def begin(folder: Path, blocks: list[Block], boot: str = BOOT, opened: Open = open_file) -> tuple[RedoLog, Begun]:
    """As a start does."""
    redo_log = opened(folder, Disk(), boot)
    found = redo_log.recover()
    begun = start.begin(redo_log, found, restore(found, boot), boot=boot, folder=folder, blocks=blocks)
    return redo_log, begun


class Primary:
    def __init__(self, folder: Path, blocks: list[Block] | None = None, disk: Disk | None = None) -> None:
        self.blocks = blocks or [Block(folder / "state.db")]
        self.log, self.begun = begin(folder, self.blocks)
        self.now = 1000.0
        self.committer = Committer(self.begun.store, self.log, self._publish)
        self.writing = asyncio.Lock()
        self.flusher = Flusher(self.committer, self.blocks, self.writing, disk, clock=lambda: self.now)
        self._run = asyncio.create_task(self.committer.run())

    async def _publish(self, deltas: Sequence[Delta]) -> None:
        """Nobody follows."""

    @property
    def store(self) -> Store:
        return self.committer.store

    @property
    def path(self) -> Path:
        return self.blocks[-1].path

    async def write(self, *changes: Change) -> Committed:
        return await self.committer.transact(Transact(changes=list(changes)))

    def later(self, seconds: float) -> None:
        self.now += seconds

    async def stop(self) -> None:
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)
        self.log.close()


def names(store: Store, cls: str = "network") -> set[str]:
    return {str(row["name_label"]) for row in store.rows(cls).values()}
