"""Which of this process's asyncio tasks work for which task of the API."""

from __future__ import annotations

import asyncio
from typing import Any

Work = asyncio.Task[Any]


class Running(dict[str, set[Work]]):
    """Task reference to who works for it: one call, or several that were told to run inside the same task."""

    def begin(self, task: str, work: Work) -> None:
        self.setdefault(task, set()).add(work)

    def end(self, task: str, work: Work) -> None:
        """Nothing happens if it has not begun."""
        works = self.get(task, set())
        works.discard(work)
        if not works and task in self:
            del self[task]

    def cancel(self, task: str) -> None:
        """Asks everybody who works for it to stop; they do so at their next wait."""
        for work in self.get(task, ()):
            work.cancel()

    def works(self) -> list[Work]:
        return [work for works in self.values() for work in works]
