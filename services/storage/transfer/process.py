"""A worker, as the service has it: started, listened to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Final

from services.storage.plugins.lifetime import inherited
from services.storage.transfer.job import Ended, Failed, Job, Progress, Ready, pack_job, unpack

log = logging.getLogger("storage.transfer")

_ROOT: Final = Path(__file__).parents[3]
_LONGEST_LINE: Final = 1 << 20
_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""For glibc: pieces are used again, instead of being mapped anew each."""


class Worker:
    """`progress`: 0 to 1. `ready` and `ended` are done in this order, or with the failure; `ended` when the process is
    gone.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        self.progress = 0.0
        self.ready: asyncio.Future[Ready | Failed] = loop.create_future()
        self._process = process
        self.ended: asyncio.Task[Ended | Failed] = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls) -> Worker:
        """It waits for its job. Raises OSError."""
        setpriv = shutil.which("setpriv")
        tied = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        process = await asyncio.create_subprocess_exec(
            *(*tied, sys.executable, "-m", "services.storage.transfer"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            pass_fds=inherited(),
            cwd=_ROOT,
            env={**os.environ, **_MEMORY},
        )
        return cls(process)

    def begin(self, job: Job) -> None:
        """The pipe stays open: the worker ends when it closes, also one that has no job yet. One that has ended already
        has failed, and `ready` says so.
        """
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():  # uvloop refuses to write then
            self._process.stdin.write(pack_job(job))

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """It holds nothing that has to be put in order."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _follow(self) -> Ended | Failed:
        said = asyncio.create_task(self._complaints())
        try:
            try:
                result = await self._listen()
            except ValueError as error:
                result = Failed("internal", str(error))
                self.kill()
            status = await self._process.wait()
            words = await said
        finally:
            self.kill()
            said.cancel()
        if words:
            log.error("a transfer's worker complains: %s", words)
        if result is None and status == -signal.SIGBUS:
            result = Failed("disk", "the image's file cannot be read, or has shrunk")
        if result is None:
            result = Failed("internal", f"the worker has ended early with status {status}: {words}")
        if not self.ready.done():
            self.ready.set_result(result if isinstance(result, Failed) else Ready())
        return result

    async def _listen(self) -> Ended | Failed | None:
        assert self._process.stdout is not None
        result: Ended | Failed | None = None
        async for line in self._process.stdout:
            match unpack(line):
                case Ready() as ready:
                    self.ready.set_result(ready)
                case Progress(part):
                    self.progress = part
                case (Ended() | Failed()) as result:
                    pass
        return result

    async def _complaints(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode(errors="replace").strip()
