"""A bar of 80 columns that grows while a file is on its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from services.cli.protocol import PrintStderr
from services.cli.server.command import Call

COLUMNS: Final = 80
_SPINNER: Final = "|/-\\"
_UNKNOWN: Final = "--:--:--"


def clock(seconds: float) -> str:
    """`hh:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def bar(part: float, elapsed: float, turn: int) -> str:
    """`part`: 0 to 1. `elapsed`: seconds that it took to come so far. `turn`: counts the bars that were drawn."""
    left = clock(elapsed / part - elapsed) if part > 0 else _UNKNOWN
    begin, end = f"[{_SPINNER[turn % len(_SPINNER)]}] ", f" ({int(part * 100):3d}% ETA {left})"
    room = COLUMNS - len(begin) - len(end)
    drawn = "#" * max(0, int(part * room) - 1) + ">" if part > 0 else ""
    return begin + drawn.ljust(room) + end


class ProgressBar:
    """Drawn on the client's standard error, anew whenever there is more of it."""

    def __init__(self, call: Call, now: Callable[[], float] = time.monotonic) -> None:
        self._call, self._now = call, now
        self._begun = now()
        self._percent, self._turn = -1, 0

    async def show(self, part: float) -> None:
        part = min(max(part, 0.0), 1.0)
        if int(part * 100) > self._percent:
            self._percent = int(part * 100)
            await self._write("\r" + bar(part, self._now() - self._begun, self._turn))
            self._turn += 1

    async def end(self) -> None:
        await self._write(f"\nTotal time: {clock(self._now() - self._begun)}\n")

    async def _write(self, text: str) -> None:
        await self._call.terminal.send(PrintStderr(text))
