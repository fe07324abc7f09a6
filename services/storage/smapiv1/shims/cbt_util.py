"""cbt-util: logs of changed blocks. A change replaces the file whole: a crash leaves the old or the new one."""

from __future__ import annotations

import errno
import os
import stat
import sys
import uuid as uuids
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from services.storage.formats.cbt import Log, merge, new_log, parse_log
from services.storage.smapiv1.shims.program import Arguments, Command, Failed, Misused, run

_FIELDS: Final[dict[str, Callable[[Log], str]]] = {
    "p": lambda log: str(log.parent),
    "c": lambda log: str(log.child),
    "f": lambda log: str(int(log.consistent)),
    "s": lambda log: str(log.size),
}


def load(path: str) -> Log:
    """Raises `FormatError`, `OSError`."""
    with open(path, "rb") as file:
        return parse_log(file.read())


def save(path: str, log: Log) -> None:
    """In place on a block device (a logical volume), otherwise by a new file of that name."""
    data = log.pack()
    if os.path.exists(path) and stat.S_ISBLK(os.stat(path).st_mode):
        _write(path, data, os.O_WRONLY)
        return
    _write(f"{path}.new", data, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.rename(f"{path}.new", path)


def _write(path: str, data: bytes, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _create(given: Arguments) -> None:
    save(given.text("n"), replace(new_log(given.number("s")), consistent=False))


def _get(given: Arguments) -> None:
    asked = [letter for letter in "pcfsb" if given.has(letter)]
    if len(asked) != 1:
        raise Misused("one of -p, -c, -f, -s, -b")
    log = load(given.text("n"))
    if asked == ["b"]:
        sys.stdout.buffer.write(log.bitmap)
        sys.stdout.buffer.flush()
    else:
        print(_FIELDS[asked[0]](log))


def _set(given: Arguments) -> None:
    if not any(given.has(letter) for letter in "pcfs"):
        raise Misused("one of -p, -c, -f, -s")
    log = load(given.text("n"))
    if given.has("p"):
        log = replace(log, parent=_uuid(given, "p"))
    if given.has("c"):
        log = replace(log, child=_uuid(given, "c"))
    if given.has("f"):
        log = replace(log, consistent=bool(given.number("f")))
    if given.has("s"):
        log = log.resized(given.number("s"))
    save(given.text("n"), log)


def _uuid(given: Arguments, letter: str) -> uuids.UUID:
    try:
        return uuids.UUID(given.text(letter))
    except ValueError:
        raise Misused(f"-{letter} {given.text(letter)}: no uuid") from None


def _coalesce(given: Arguments) -> None:
    """The parent's blocks into the child's log, which keeps its own links."""
    older, newer = load(given.text("p")), load(given.text("c"))
    if newer.size < older.size:
        raise Failed(errno.EINVAL, f"the child's log is of {newer.size} bytes, the parent's of {older.size}")
    save(given.text("c"), replace(newer, bitmap=merge(older, newer).bitmap))


COMMANDS: Final = {
    "create": Command("n:s:", "-n FILE -s BYTES", _create),
    "get": Command("n:pcfsb", "-n FILE -p|-c|-f|-s|-b", _get),
    "set": Command("n:p:c:f:s:", "-n FILE [-p UUID] [-c UUID] [-f 0|1] [-s BYTES]", _set),
    "coalesce": Command("p:c:", "-p PARENT -c CHILD", _coalesce),
}


def main(arguments: Sequence[str]) -> int:
    return run("cbt-util", COMMANDS, arguments[1:])
