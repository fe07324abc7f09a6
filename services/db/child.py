"""Work in a forked child: it has the memory as it is now, and nobody waits for it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final

NICE: Final = 10
"""What a writer that nobody waits for leaves of the processor to commits."""


class Child:
    """A process that does one thing and ends. `done` may be awaited by several."""

    def __init__(self, work: Callable[[], None], nice: int = 0) -> None:
        """Forks at once. Nothing of the parent's event loop, bus or exit handlers runs in the child."""
        self.pid = os.fork()
        if self.pid == 0:
            _run(work, nice)
        self.done = asyncio.ensure_future(asyncio.to_thread(_wait, self.pid))

    async def wait(self) -> int:
        """Its exit status; negative: the signal that ended it. A waiter that is cancelled leaves it running."""
        return await asyncio.shield(self.done)

    def hurry(self) -> None:
        """Somebody waits for it now. Only a privileged process may say so to one that is nice."""
        if not self.done.done():
            with suppress(PermissionError, ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, self.pid, 0)

    def end(self) -> None:
        """It is killed; nobody waits for it."""
        if not self.done.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def kill(self) -> None:
        """Returns when it is gone."""
        self.end()
        await asyncio.shield(self.done)


def _run(work: Callable[[], None], nice: int) -> None:
    """Never returns."""
    status = 1
    try:
        # A collection would write to every object's header, and have the kernel copy all pages.
        gc.disable()
        os.nice(nice)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
