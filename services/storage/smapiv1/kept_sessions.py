"""Sessions of the API that a process has, in a file, for the next one to end if this one is killed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

log = logging.getLogger("storage.smapiv1")


class KeptSessions:
    """`former`: those that an earlier process has left. `path`: None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.former: list[str] = _read(path)
        self._own: list[str] = []

    def add(self, session: str) -> None:
        self._own.append(session)
        self._write()

    def drop(self, session: str) -> None:
        """It has ended."""
        self._own = [one for one in self._own if one != session]
        self.former = [one for one in self.former if one != session]
        self._write()

    def _write(self) -> None:
        """For its owner only: who knows a session has it."""
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(file, "w") as out:
            json.dump([*self.former, *self._own], out)
        os.replace(fresh, self._path)


def _read(path: Path | None) -> list[str]:
    try:
        found = [] if path is None else json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except ValueError as error:
        log.error("%s does not say which sessions are left, which end by themselves: %s", path, error)
        return []
    return [str(session) for session in found]
