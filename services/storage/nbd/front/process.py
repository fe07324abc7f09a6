"""The process that NBD clients talk to, as the service has it: started, told, listened to, ended with the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from services.storage.nbd.front.words import Order, Told, pack, unpack

log = logging.getLogger("storage.nbd")

_ROOT: Final = Path(__file__).parents[4]
_LONGEST_LINE: Final = 1 << 20
"""Of what it tells; names of exports are shorter."""


class FrontProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._complaints = asyncio.create_task(self._complain(), name="log of the NBD process")

    @classmethod
    async def start(cls, haggle_within: float) -> FrontProcess:
        """`haggle_within`: seconds that a client may take until its requests begin. Raises OSError."""
        setpriv = shutil.which("setpriv")
        tied = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        process = await asyncio.create_subprocess_exec(
            *(*tied, sys.executable, "-m", "services.storage.nbd.front", str(haggle_within)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            cwd=_ROOT,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, order: Order) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(pack(order))

    async def words(self) -> AsyncIterator[Told]:
        """What it tells, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield unpack(line)

    async def close(self) -> None:
        """Its connections are cut."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._complaints

    async def _complain(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            log.info("NBD: %s", line.decode(errors="replace").rstrip())
