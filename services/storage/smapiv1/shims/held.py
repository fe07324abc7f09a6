"""Who on this host has a disk of a driver: found by the links that drivers make, and quiesced.

    /run/blktap-control/nbd/<sr>/<vdi> -> nbd<pid>.<minor>      a disk that is served
    /dev/sm/phy/<sr>/<vdi> -> its image

Asking again is no error: what is paused is paused, what runs runs.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import socket
import sys
from typing import Final

from services.storage.smapiv1.shims import control
from services.storage.smapiv1.shims.control import PAUSED, Row
from services.storage.smapiv1.shims.program import Failed

_SOCKET: Final = re.compile(r"nbd(\d+)\.(\d+)")
_IMAGES: Final = "/dev/sm/phy"
_MOUNTS: Final = "/run/sr-mount"


def link(sr: str, vdi: str) -> str:
    """Uuids."""
    return f"{control.FOLDER}/nbd/{sr}/{vdi}"


def pause(sr: str, vdi: str) -> bool:
    """Whether nobody on this host reads or writes its images now."""
    row = _tapdisk(sr, vdi)
    if row is None:
        return not _listens(link(sr, vdi))  # somebody else's server, which cannot be paused
    return row["state"] == PAUSED or _tell(row, "pause", timeout=None)


def unpause(sr: str, vdi: str) -> bool:
    """Whether it goes on, if there is anything that can."""
    row = _tapdisk(sr, vdi)
    return row is None or row["state"] != PAUSED or _tell(row, "unpause", args="", log="")


def refresh(sr: str, vdi: str) -> bool:
    """Its images are opened anew."""
    return pause(sr, vdi) and unpause(sr, vdi)


def _tell(row: Row, do: str, **arguments: object) -> bool:
    try:
        control.ask(row["pid"], do, minor=row["minor"], **arguments)
    except Failed as error:
        if do == "pause" and error.number == errno.ENODEV:  # it was closed meanwhile
            return True
        print(f"{do}: {error.text}", file=sys.stderr)
        return False
    return True


def _tapdisk(sr: str, vdi: str) -> Row | None:
    """The row of the tapdisk that serves it."""
    match = _SOCKET.fullmatch(os.path.basename(os.path.realpath(link(sr, vdi))))
    if match is None:
        return None
    try:
        rows = control.rows(int(match[1]))
    except Failed as error:
        if error.number == errno.ENOENT:
            return None
        raise
    return next((row for row in rows if row.get("minor") == int(match[2]) and "args" in row), None)


def is_open(sr: str, vdi: str) -> bool:
    """Whether a server has it, or any process its image."""
    if _tapdisk(sr, vdi) is not None or _listens(link(sr, vdi)):
        return True
    return _used([f"{_IMAGES}/{sr}/{vdi}", *glob.glob(f"{_MOUNTS}/{glob.escape(sr)}/{glob.escape(vdi)}.*")])


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError:
            return True  # whoever it is, it is there
    return True


def _used(paths: list[str]) -> bool:
    """Whether a process has one of them open, in whatever namespace."""
    wanted = set()
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            continue
        wanted.add((found.st_dev, found.st_ino))
    return bool(wanted) and any(
        key in wanted for pid in os.listdir("/proc") if pid.isdigit() for key in _open_files(pid)
    )


def _open_files(pid: str) -> list[tuple[int, int]]:
    found = []
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []
    for name in names:
        try:
            seen = os.stat(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        found.append((seen.st_dev, seen.st_ino))
    return found
