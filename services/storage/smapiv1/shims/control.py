"""How tap-ctl finds tapdisks and talks to them, and who has which minor.

All is below /run/blktap-control, which each host of a machine has for its own:

    ctl<pid>             a tapdisk's socket: one request and one answer, each a line of JSON, per connection
    nbd<pid>.<minor>     the NBD socket of an open disk
    tapdisk/tapdisk-<minor>  a minor that somebody has

A tapdisk outlives who has started it. One that was killed is noticed by its socket, on which nobody listens.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypedDict

from services.storage.smapiv1.shims.program import Failed

FOLDER: Final = "/run/blktap-control"
MINORS: Final = f"{FOLDER}/tapdisk"
CLOSED: Final = 0x02
PAUSE_REQUESTED: Final = 0x10
PAUSED: Final = 0x20
"""Bits of a disk's state; 0: it is open."""
_MOST_MINORS: Final = 1 << 20
_CONTROL: Final = re.compile(r"ctl(\d+)")
_MINOR: Final = re.compile(r"tapdisk-(\d+)")


class Row(TypedDict, total=False):
    """`args`: type and path."""

    pid: int
    minor: int
    state: int
    args: str


def control_socket(pid: int) -> str:
    return f"{FOLDER}/ctl{pid}"


def nbd_socket(pid: int, minor: int) -> str:
    return f"{FOLDER}/nbd{pid}.{minor}"


def ask(pid: int, do: str, **arguments: Any) -> Any:
    """What the tapdisk answers; waits as long as it takes. Raises `Failed`: ENOENT if there is no such tapdisk."""
    request = json.dumps({"do": do, **arguments}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(control_socket(pid))
            connection.sendall(request)
            with connection.makefile("rb") as file:
                line = file.readline()
        except FileNotFoundError:
            raise Failed(errno.ENOENT, f"there is no tapdisk {pid}") from None
        except ConnectionRefusedError:
            _bury(pid)
            raise Failed(errno.ENOENT, f"tapdisk {pid} is gone") from None
        except OSError as error:
            raise Failed(errno.EPROTO, f"tapdisk {pid}: {error.strerror}") from None
    if not line.endswith(b"\n"):
        raise Failed(errno.EPROTO, f"tapdisk {pid} has gone before it answered")
    answer = json.loads(line)
    if answer["status"]:
        raise Failed(answer["status"], f"tapdisk {pid}: {answer['words']}")
    return answer["value"]


def rows(pid: int | None = None) -> list[Row]:
    """All tapdisks with their disks, and minors that nobody serves; or one tapdisk (raises `Failed` without it)."""
    if pid is not None:
        return _rows_of(pid)
    found: list[Row] = []
    for each in _pids():
        with suppress(Failed):  # it has ended since
            found.extend(_rows_of(each))
    served = {row["minor"] for row in found if "minor" in row}
    found.extend(Row(minor=minor) for minor in minors() if minor not in served)
    return found


def _rows_of(pid: int) -> list[Row]:
    disks: list[Row] = ask(pid, "list")
    return [{"pid": pid, **row} for row in disks] or [{"pid": pid}]


def _pids() -> list[int]:
    return sorted(int(match[1]) for name in _names(FOLDER) if (match := _CONTROL.fullmatch(name)))


def minors() -> list[int]:
    """Those that are allocated."""
    return sorted(int(match[1]) for name in _names(MINORS) if (match := _MINOR.fullmatch(name)))


def allocate() -> str:
    """The path that stands for a free minor. Raises ENOSPC."""
    os.makedirs(MINORS, exist_ok=True)
    with _alone():
        taken = set(minors())
        minor = next((number for number in range(_MOST_MINORS) if number not in taken), None)
        if minor is None:
            raise Failed(errno.ENOSPC, "all minors are taken")
        path = f"{MINORS}/tapdisk-{minor}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return path


def free(minor: int) -> None:
    """Raises EBUSY while a tapdisk has it; ENODEV if it is nobody's."""
    if any(row.get("minor") == minor and "pid" in row for row in rows()):
        raise Failed(errno.EBUSY, f"minor {minor} is served by a tapdisk")
    try:
        os.unlink(f"{MINORS}/tapdisk-{minor}")
    except FileNotFoundError:
        raise Failed(errno.ENODEV, f"minor {minor} is not allocated") from None


def _bury(pid: int) -> None:
    """Removes the sockets of a tapdisk that was killed."""
    for name in _names(FOLDER):
        if name == f"ctl{pid}" or name.startswith((f"nbd{pid}.", f"ctl{pid}.")):
            with suppress(FileNotFoundError):
                os.unlink(f"{FOLDER}/{name}")


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


@contextmanager
def _alone() -> Iterator[None]:
    descriptor = os.open(MINORS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
