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
from services.db.redo.interface import RedoLog
from services.db.redo.layered import LayeredRedoLog
from services.db.redo.off import NoRedoLog
from services.db.redo.quorum.log import QuorumRedoLog
from shared.redo_blocks.layout import Geometry

SMALL: Final = Geometry(half=64_000)

Open = Callable[[Path, Disk, str], RedoLog]


@dataclass(frozen=True)
class Backend:
    """`durable`: what it acknowledged is there after a power cut. `full`: it raises `LogFull` after some commits.

    `checked`: its records have checksums, so that damage in the middle is noticed. `records`: of the file whose middle
    is damaged by the suite, among those of the folder.
    """

    kind: str
    open: Open
    durable: bool = True
    full: bool = False
    checked: bool = True
    elsewhere: bool = False
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


_broker: list[str] = []


def on_broker(url: str) -> None:
    """Where logs that live on a broker are from here on."""
    _broker.append(url)


BACKENDS: Final = (
    Backend("file", open_file),
    Backend("off", open_off, durable=False),
    Backend("block", open_block, full=True, records="device"),
    Backend("quorum", open_quorum, elsewhere=True),
)
