"""`--debug` and `--debug-on-fail`: the protocol, as lines on standard error."""

from __future__ import annotations

import sys


class Trace:
    """`now`: every line at once. `on_fail`: kept, and shown when the command has failed."""

    def __init__(self, now: bool, on_fail: bool) -> None:
        self._now = now
        self._kept: list[str] | None = [] if on_fail and not now else None

    def note(self, line: str) -> None:
        if self._now:
            sys.stderr.write(f"[debug] {line}\n")
        elif self._kept is not None:
            self._kept.append(line)

    def finish(self, status: int) -> None:
        if status and self._kept:
            sys.stderr.writelines(f"[debug] {line}\n" for line in self._kept)
