"""Which files the server may name: only those the user named, so that a hostile server cannot read or write others."""

from __future__ import annotations

import os
from collections.abc import Iterable


class NotPermitted(Exception):
    """The server asked for a file that no argument names."""

    def __init__(self, filename: str) -> None:
        super().__init__(f"File not permitted: {filename}")


class NamedFiles:
    """The files that the forwarded arguments name: what follows the first `=` of each.

    Paths are compared absolute and without `.` and `..`; symbolic links are not followed.
    """

    def __init__(self, arguments: Iterable[str]) -> None:
        values = (argument.partition("=")[2].strip() for argument in arguments)
        self._named = {os.path.abspath(value) for value in values if value}

    def check(self, filename: str, *, directory: bool = False) -> None:
        """Raises `NotPermitted`. `directory`: the current folder itself will do too (downloads)."""
        path = os.path.abspath(filename)
        if path not in self._named and not (directory and path == os.getcwd()):
            raise NotPermitted(filename)
