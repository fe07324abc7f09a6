"""What is being merged in an SR, for all hosts to see; who may merge; and how others make it stop.

.leases/coalesce      locked by the host that merges, while it does
.leases/merging       the merge that is under way (`Merging`), "{}" for none: written durably before it begins
.leases/stop.<host>   locked by a host that needs images which are being merged

Who activates a disk writes its lease first and looks here then; who merges writes here first and looks at the leases
then. So one of them sees the other. Locks vanish with who holds them: what a crash left stops nobody.

These functions block; they run in the SR's worker threads.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from services.storage.plugins.file.folder import Folder, replace_file
from services.storage.plugins.file.lease import FOLDER, Busy, Guard
from shared.bus.contract import Record


class Merging(Record, frozen=True):
    """Images by name. `above`: the image over `top` in the chain of `dp`, for a merge that the hypervisor does; "" for
    one of images that nobody has open.
    """

    host: str = ""
    top: str = ""
    base: str = ""
    above: str = ""
    dp: str = ""
    disk: str = ""

    @property
    def images(self) -> frozenset[str]:
        return frozenset(name for name in (self.top, self.base) if name)


NOTHING = Merging()


def path(folder: Folder) -> Path:
    return folder.path / FOLDER / "merging"


def begin(folder: Folder, merging: Merging) -> None:
    replace_file(path(folder), msgspec.json.encode(merging), folder.draft("merging"))


def end(folder: Folder) -> None:
    begin(folder, NOTHING)


def current(folder: Folder) -> Merging:
    try:
        return msgspec.json.decode(path(folder).read_bytes(), type=Merging)
    except FileNotFoundError:
        return NOTHING


def claim(folder: Folder) -> Guard | None:
    """The right to merge; None: another has it."""
    try:
        return Guard(folder.path / FOLDER / "coalesce")
    except Busy:
        return None


def is_alive(folder: Folder) -> bool:
    """Whether somebody merges just now."""
    claimed = claim(folder)
    if claimed is None:
        return True
    claimed.close()
    return False


def ask_to_stop(folder: Folder) -> Guard:
    """Until it is closed. Raises `Busy` while this host asks already."""
    return Guard(folder.path / FOLDER / f"stop.{folder.host}")


def is_asked_to_stop(folder: Folder) -> bool:
    """The files stay: one that was removed while somebody waits for its lock would be locked unseen."""
    for asking in (folder.path / FOLDER).glob("stop.*"):
        try:
            Guard(asking).close()
        except Busy:
            return True
    return False
