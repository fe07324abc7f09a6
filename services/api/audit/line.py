"""One line of the audit log: who asked for what, and what came of it.

    [20250102T03:04:05.678Z|audit|host1|0 192.0.2.7|Async.VM.start R:1f3c5d7e9a0b|audit] ('trackid=6f0...' 'S-1-5-21'
    'DOMAIN\\\\user' 'ALLOWED' 'OK' 'API' 'VM.start' (('vm' 'web server' '7c1...' 'OpaqueRef:...')))

(in one line). Programs that make reports of it read the original's, so the form is the original's.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

LOCAL_SUPERUSER: Final = "LOCAL_SUPERUSER"
LOCAL_SESSION: Final = "LOCAL_SESSION"

LONGEST: Final = 1024
"""Characters of one text: what clients make up must not fill the disk."""


class Kind(StrEnum):
    API = "API"
    HTTP = "HTTP"


class Argument(NamedTuple):
    """`name`, `uuid`, `ref`: of the object that it names; a plain value stands under `name`."""

    parameter: str
    name: str
    uuid: str = ""
    ref: str = ""


class Who(NamedTuple):
    """`track`: the session, as logs name it; the session's reference is in no log. `sid`: of the subject."""

    track: str
    sid: str
    user: str


NOBODY: Final = Who("", "", "")


@dataclass(frozen=True, slots=True)
class Entry:
    """`at`: Unix time. `address`: of the client, "" on the Unix socket. `task`: what the call's task is called.

    `result`: `OK`, or `ERROR:` and the error.
    """

    at: float
    host: str
    address: str
    task: str
    who: Who
    allowed: bool
    result: str
    kind: Kind
    action: str
    arguments: tuple[Argument, ...] = ()

    def line(self) -> str:
        words = (*self.who, "ALLOWED" if self.allowed else "DENIED", self.result, self.kind, self.action)
        arguments = " ".join(f"({_quoted(argument)})" for argument in self.arguments)
        return f"{prefix(self.at, self.host, self.address, self.task)} ({_quoted(words)} ({arguments}))"


def prefix(at: float, host: str, address: str, task: str) -> str:
    seconds, milliseconds = divmod(round(at * 1000), 1000)
    moment = f"{_second(seconds)}.{milliseconds:03d}Z"
    return f"[{moment}|audit|{_field(host)}|0 {_field(address) or 'unix'}|{_field(task)}|audit]"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H:%M:%S", time.gmtime(seconds))


def in_one_line(text: str) -> str:
    """Line breaks and other control characters become blanks."""
    return text if text.isprintable() else _CONTROL.sub(" ", text)


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def _field(text: str) -> str:
    return in_one_line(text[:LONGEST]).replace("|", " ").replace("]", " ")


def _quoted(words: tuple[str, ...]) -> str:
    return " ".join(f"'{_escaped(word)}'" for word in words)


def _escaped(word: str) -> str:
    text = in_one_line(word[:LONGEST])
    return text.replace("\\", "\\\\").replace("'", "\\'") if "'" in text or "\\" in text else text


# ---- since


def since_key(text: str) -> str:
    """A moment as `since` gives it, made comparable with that of a line: dashes and the Z do not count."""
    return text.replace("-", "").replace("Z", "")


def is_since(line: bytes, key: bytes) -> bool:
    """Whether the line is from that moment or later. What has no moment belongs to the line before it: it counts."""
    moment, bar, _ = line[1:32].partition(b"|")
    return not line.startswith(b"[") or not bar or moment.replace(b"Z", b"") >= key
