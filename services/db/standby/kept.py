"""What a process of the database must know of itself when it is started again: a small file beside its log."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import msgspec

from services.db.disk import Disk
from shared.contracts.db import RedoLogDisk, TermStart
from shared.lineage import Lineage

log = logging.getLogger("db.standby")


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`role`: what it was told to be by a promotion or a hand-over; "" before any. `promised`: the term that it tries
    to begin, 0 for none. `lineage`: of its rows. `hosts`: that have such a process as well. `pool`: whose they all are.
    `redo_log`: the disk that its redo log is on as well, so that a start can read it before there are rows.
    """

    role: Literal["", "primary", "standby"] = ""
    promised: int = 0
    lineage: list[TermStart] = []
    hosts: list[str] = []
    pool: str = ""
    redo_log: RedoLogDisk | None = None


class KeptFile:
    """Replaced as a whole, and durable when `save` returns. Blocking calls, of some milliseconds."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder = folder
        self._path = folder / "standing.json"
        self._disk = disk or Disk()
        self.kept = self._load()
        self.lineage = Lineage(self.kept.lineage)

    def _load(self) -> Kept:
        """One that cannot be read says nothing: the process asks the others, and followers fetch snapshots."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, msgspec.MsgspecError) as error:
            log.error("%s cannot be used: %s", self._path, error)
            return Kept()

    def is_of(self, pool: str) -> bool:
        """False: this host was in another pool when it was written. "" is any pool."""
        return not self.kept.pool or not pool or self.kept.pool == pool

    def forget_promise(self) -> None:
        """Until the process is started anew."""
        self.kept = msgspec.structs.replace(self.kept, promised=0)

    def save(self, **fields: object) -> None:
        """Raises `OSError`: then it is as before."""
        kept = msgspec.structs.replace(self.kept, **fields)
        new = self._path.with_suffix(".new")
        descriptor = self._disk.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self._disk.write_all(descriptor, msgspec.json.encode(kept), 0)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)
        self._disk.rename(new, self._path)
        self._disk.sync_folder(self._folder)
        self.kept, self.lineage = kept, Lineage(kept.lineage)
