"""Run in a new mount namespace: puts a host's files where its drivers look for them.

    furnish.py '{"keep_shared": PATH, "folders": {INSIDE: SOURCE}, "files": {..}, "overlays": {INSIDE: [..]}}'

Everything but what lies below `keep_shared` becomes private first, so that others see nothing of this. Mount points
that the machine lacks are made on it, empty, as systemd does for BindPaths=. A program of its own: only the standard
library. What could not be done, and can be done without, is a line on stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

BIND, RECURSIVE, PRIVATE, READ_ONLY = 4096, 16384, 1 << 18, 1
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Raises OSError."""
    if libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(data)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def make_private(keep: str) -> None:
    with open("/proc/self/mountinfo") as file:
        lines = [line.split() for line in file]
    for words in lines:
        point = words[4].encode().decode("unicode_escape")
        shared = any(word.startswith("shared:") for word in words[6 : words.index("-")])
        if shared and point != keep and not point.startswith(keep + "/"):
            mount("", point, flags=PRIVATE)


def bind(source: str, inside: str, folder: bool) -> None:
    os.makedirs(inside if folder else os.path.dirname(inside), exist_ok=True)
    if not folder and not os.path.exists(inside):
        with open(inside, "x"):
            os.chmod(inside, 0o644)
    mount(source, inside, flags=BIND | (RECURSIVE if folder else 0))


def overlay(layers: list[str], inside: str) -> None:
    """Folders that lie over each other, the first on top; the system's stays as it is for others."""
    names = [os.path.realpath(each).replace("\\", "\\\\").replace(":", "\\:") for each in layers]
    mount("overlay", os.path.realpath(inside), "overlay", READ_ONLY, f"lowerdir={':'.join(names)}")


def main(spec: dict[str, Any]) -> None:
    make_private(spec["keep_shared"])
    for inside, layers in spec["overlays"].items():
        there = [layer for layer in layers if os.path.isdir(layer)]
        try:
            if there != [inside]:
                overlay(there, inside)
        except OSError as error:
            print(f"programs that {inside} lacks are found by PATH alone: {error}", file=sys.stderr)
    for inside, source in spec["folders"].items():
        if os.path.isdir(source):
            bind(source, inside, folder=True)
    for inside, source in spec["files"].items():
        bind(source, inside, folder=False)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
