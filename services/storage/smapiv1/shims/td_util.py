"""td-util: VHDs made, and asked about, as drivers of files do."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from services.storage.smapiv1.shims import images
from services.storage.smapiv1.shims.images import MIB, opened
from services.storage.smapiv1.shims.program import Arguments, Command, Failed, Misused, run
from services.storage.smapiv1.shims.vhd_util import QUERIES

_FIELDS: Final = "vpfd"
"""What can be asked, in the order in which it is answered."""


def _create(given: Arguments) -> None:
    size, path = given.name(1, 3), given.name(2, 3)
    if not size.isdecimal():
        raise Misused(f"{size}: no number")
    if _type(given) == "aio":
        _create_raw(path, int(size) * MIB, given.has("r"))
    else:
        images.create(path, int(size) * MIB, given.has("r"))


def _create_raw(path: str, size: int, reserve: bool) -> None:
    if not reserve:
        raise Failed(errno.EINVAL, "a raw image cannot be sparse")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def _snapshot(given: Arguments) -> None:
    path, name = given.name(1, 3), given.name(2, 3)
    if _type(given) != "vhd":
        raise Failed(errno.EINVAL, "only VHDs have snapshots")
    beside = os.path.join(os.path.dirname(os.path.abspath(path)), name)
    parent = beside if os.path.exists(beside) else name
    if not os.path.exists(parent):
        raise Failed(errno.ENOENT, f"File {name} not found")
    limit = given.text("l") if given.has("l") else "0"
    if int(limit or 0) and images.depth(parent) + 1 > int(limit):
        raise Failed(errno.ENOSPC, f"the chain of {parent} is {limit} images long")
    images.snapshot(path, parent, given.has("m"))


def _query(given: Arguments) -> None:
    path = given.name(1, 2)
    if _type(given) == "aio":
        answers = {"v": str(_raw_size(path) // MIB), "p": f"{path} has no parent", "f": "hidden: 0"}
        for letter in _FIELDS:
            if given.has(letter) and letter in answers:
                print(answers[letter])
        return
    with opened(path) as image:
        for letter in _FIELDS:
            if given.has(letter):
                print(QUERIES[letter](image, path))


def _raw_size(path: str) -> int:
    with open(path, "rb") as file:
        return file.seek(0, os.SEEK_END)


def _type(given: Arguments) -> str:
    kind = given.names[0]
    if kind not in ("vhd", "aio"):
        raise Misused(f"invalid TYPE {kind!r}")
    return kind


COMMANDS: Final = {
    "create": Command("rb", "vhd|aio [-r] MB FILE", _create),
    "snapshot": Command("bml:", "vhd [-m] [-l DEPTH] FILE PARENT", _snapshot),
    "query": Command("vpfdb", "vhd|aio [-v] [-p] [-f] [-d] FILE", _query),
}


def main(arguments: Sequence[str]) -> int:
    return run("td-util", COMMANDS, arguments[1:])
