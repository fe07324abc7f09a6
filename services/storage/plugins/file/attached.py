"""An SR on one host: its folder, and the threads that work in it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from services.storage.plugins.errors import Failure, backend_failure, sr_full
from services.storage.plugins.file.folder import Folder
from services.storage.settle import settle

_A = ParamSpec("_A")
_R = TypeVar("_R")


class Attached:
    """An SR on one host."""

    def __init__(self, folder: Folder, workers: ThreadPoolExecutor) -> None:
        self.folder, self._workers = folder, workers

    async def run(self, work: Callable[_A, _R], *args: _A.args, **kwargs: _A.kwargs) -> _R:
        """Blocking work, in a worker thread and to its end; the system's errors become the catalogue's."""
        try:
            return await settle(self._in_thread(partial(work, *args, **kwargs)))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise sr_full(0, 0) from error
            await settle(self._in_thread(self.folder.check))
            raise backend_failure(Failure.IO, f"SR {self.folder.uuid}: {error}", error.strerror) from error

    async def _in_thread(self, work: Callable[[], _R]) -> _R:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)
