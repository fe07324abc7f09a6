"""The redo logs that pass the conformance suite (`test_conformance.py`), as the database process puts them together.

To add a back end: give it an entry in `BACKENDS`, with what it can do. `open` gets the folder of the database process,
the disk that everything must go through, and the boot of the machine; it is called anew for each start. What is not on
that disk (a broker) is not cut off by its power cuts: `elsewhere`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.db.disk import Disk
from services.db.redo.block.log import BlockRedoLog
from services.db.redo.file import FileRedoLog
from services.db.redo.interface import Checkpoint, RedoLog
from services.db.redo.layered import LayeredRedoLog
from services.db.redo.mirrored import MirroredRedoLog
from services.db.redo.off import NoRedoLog
from services.db.redo.quorum.log import QuorumRedoLog
from shared.redo_blocks.layout import Geometry

SMALL: Final = Geometry(half=64_000)

Open = Callable[[Path, Disk, str], RedoLog]


@dataclass(frozen=True)
class Backend:
    """`durable`: what it acknowledged is there after a power cut. `full`: it raises `LogFull` after some commits.

    `checked`: its records have checksums, so that damage in the middle is noticed. `records`: of the file whose middle
    is damaged by the suite, among those of the folder. `rarely`: the suite may fail at fewer operations, since most are
    another back end's.
    """

    kind: str
    open: Open
    durable: bool = True
    full: bool = False
    checked: bool = True
    elsewhere: bool = False
    rarely: bool = False
    records: str = "redo-*.log"

    def __str__(self) -> str:
        return self.kind


def journal(folder: Path, disk: Disk, boot: str) -> FileRedoLog:
    return FileRedoLog(folder / "redo", boot, disk, synced=False)


def open_file(folder: Path, disk: Disk, boot: str) -> RedoLog:
    return FileRedoLog(folder / "redo", boot, disk)


def open_off(folder: Path, disk: Disk, boot: str) -> RedoLog:
    return LayeredRedoLog(journal(folder, disk, boot), NoRedoLog())


def open_block(folder: Path, disk: Disk, boot: str) -> RedoLog:
    return LayeredRedoLog(journal(folder, disk, boot), BlockRedoLog(folder / "device", disk, geometry=SMALL))


def open_quorum(folder: Path, disk: Disk, boot: str) -> RedoLog:
    """A queue for each folder, on the broker that `on_broker` named."""
    name = f"redo-log-{zlib.crc32(str(folder).encode()):08x}"
    queue = QuorumRedoLog(_broker[-1], queue=name, patience=10, settle=0)
    synced = FileRedoLog(folder / "redo", boot, disk)
    return LayeredRedoLog(synced, queue, lambda: queue.idle)


class Mirrored(MirroredRedoLog):
    """As the database process uses it: the start is over with its first `begin`, and reads a disk that has had all rows
    before. Checkpoints are of the disk where that is what is wanted.
    """

    def __init__(self, folder: Path, local: FileRedoLog, open_copy: Callable[[Path, bool], BlockRedoLog]) -> None:
        super().__init__(local, open_copy, lambda: True, lambda: True, lambda why: None, lambda healthy, why: None)
        self._device = folder / "device"
        self._standing = folder.with_name("standing")
        if self._standing.exists():
            self.use(self._device)

    def begin(self, generation: int, term: int) -> None:
        super().begin(generation, term)
        if not self._armed:
            if self.path is None:
                self.use(self._device)
            self.arm()
            super().begin(generation, term)
            if self.state == "current":
                self._standing.touch()

    def checkpoint(self) -> Checkpoint:
        return self.copy_checkpoint() if self.full or self.wants_fill else super().checkpoint()


def open_mirrored(folder: Path, disk: Disk, boot: str) -> RedoLog:
    def copy(path: Path, writes: bool) -> BlockRedoLog:
        return BlockRedoLog(path, disk, geometry=SMALL, primary=lambda: writes)

    return Mirrored(folder, FileRedoLog(folder / "redo", boot, disk), copy)


_broker: list[str] = []


def on_broker(url: str) -> None:
    """Where logs that live on a broker are from here on."""
    _broker.append(url)


BACKENDS: Final = (
    Backend("file", open_file),
    Backend("off", open_off, durable=False),
    Backend("block", open_block, full=True, records="device"),
    Backend("mirrored", open_mirrored, full=True, rarely=True),
    Backend("quorum", open_quorum, elsewhere=True, rarely=True),
)
