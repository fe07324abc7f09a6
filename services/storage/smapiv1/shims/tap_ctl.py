"""tap-ctl: what drivers start, pause and end the servers of their disks by.

pid=N minor=N state=0xH args=vhd:/path      a row of `list`; state 0: open, 0x2: closed, 0x20: paused
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from typing import Final

from services.storage.smapiv1.shims import control
from services.storage.smapiv1.shims.control import Row, ask
from services.storage.smapiv1.shims.program import Arguments, Command, Failed, run


def _list(given: Arguments) -> None:
    minor = given.number("m") if given.has("m") else None
    kind, path = given.options.get("t"), given.options.get("f")
    for row in control.rows(given.number("p") if given.has("p") else None):
        its_kind, _, its_path = row.get("args", "").partition(":")
        if minor not in (None, row.get("minor")):
            continue
        if kind not in (None, its_kind) or path not in (None, its_path):
            continue
        print(_line(row))


def _line(row: Row) -> str:
    fields = []
    if "pid" in row:
        fields.append(f"pid={row['pid']}")
    if "minor" in row:
        fields.append(f"minor={row['minor']}")
    if "state" in row:
        fields.append(f"state={row['state']:#x}")
    if "args" in row:
        fields.append(f"args={row['args']}")
    return " ".join(fields)


def _spawn(given: Arguments) -> None:
    from services.storage.smapiv1.shims.tapdisk import spawn  # by far the most to import, and only here

    print(spawn())


def _open(given: Arguments) -> None:
    """-r and -e are of caches in front of the image, -D of the system's: all may be left out."""
    if given.has("2") or given.has("s"):
        raise Failed(errno.ENOTSUP, "a second image beside the first is not supported")
    if given.has("E"):
        raise Failed(errno.ENOTSUP, "encrypted images are not supported")
    _ask(given, "open", args=given.text("a"), readonly=given.has("R"), log=given.options.get("C", ""))


def _unpause(given: Arguments) -> None:
    if given.has("2"):
        raise Failed(errno.ENOTSUP, "a second image beside the first is not supported")
    _ask(given, "unpause", args=given.options.get("a", ""), log=given.options.get("c", ""))


def _close(given: Arguments) -> None:
    """-f ends also what is paused, as it always does here."""
    _ask(given, "close", timeout=given.number("t") if given.has("t") else None)


def _pause(given: Arguments) -> None:
    _ask(given, "pause", timeout=given.number("t") if given.has("t") else None)


def _stats(given: Arguments) -> None:
    print(json.dumps(ask(given.number("p"), "stats", minor=given.number("m"))))


def _ask(given: Arguments, do: str, **arguments: object) -> None:
    ask(given.number("p"), do, minor=given.number("m"), **arguments)


COMMANDS: Final = {
    "list": Command("m:p:t:f:", "[-m MINOR] [-p PID] [-t TYPE] [-f PATH]", _list),
    "allocate": Command("d:", "", lambda given: print(control.allocate())),
    "free": Command("m:", "-m MINOR", lambda given: control.free(given.number("m"))),
    "spawn": Command("", "", _spawn),
    "attach": Command("p:m:", "-p PID -m MINOR", lambda given: _ask(given, "attach")),
    "detach": Command("p:m:", "-p PID -m MINOR", lambda given: _ask(given, "detach")),
    "open": Command("a:RDm:p:e:r2:st:C:E", "-p PID -m MINOR -a TYPE:PATH [-R] [-C CBTLOG]", _open),
    "close": Command("p:m:ft:", "-p PID -m MINOR [-t SECONDS]", _close),
    "pause": Command("p:m:t:", "-p PID -m MINOR [-t SECONDS]", _pause),
    "unpause": Command("p:m:a:2:c:", "-p PID -m MINOR [-a TYPE:PATH] [-c CBTLOG]", _unpause),
    "stats": Command("p:m:", "-p PID -m MINOR", _stats),
}


def main(arguments: Sequence[str]) -> int:
    return run("tap-ctl", COMMANDS, arguments[1:])
