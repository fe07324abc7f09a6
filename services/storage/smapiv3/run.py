"""Running one script: `<script> --json`, JSON in, JSON out, its standard error to the log. No shell, no time limit.

Storage takes as long as it takes; whoever does not want to wait cancels, and the script is ended. The end of the
*script* is what counts: children that it leaves behind (a datapath starts servers) may keep its output open for ever,
so what is read is what was written when it ended. A script does not outlive the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from services.storage.settle import settle

log = logging.getLogger("storage.smapiv3")

GRACE = 2.0
"""Seconds between asking a script to end and ending it."""
LONGEST_OUTPUT = 64 << 20
"""Bytes. An SR of 10,000 volumes lists in a tenth of it."""
LONGEST_LOG = 256 << 10
"""Bytes of standard error that one run may put into the log."""
_TAIL = 2048
"""Characters of standard error that an error carries."""
_CHUNK = 1 << 16


class Outcome(NamedTuple):
    """`run`: names the run's lines in the log. `status`: as wait(2) has it, negative for a signal.

    `stderr`: the end of it. `endless`: it printed too much and was stopped.
    """

    run: str
    status: int
    stdout: bytes
    stderr: str
    endless: bool = False


def new_run() -> str:
    return secrets.token_hex(5)


async def run(name: str, script: Path, stdin: bytes, environment: Mapping[str, str]) -> Outcome:
    """`name`: of the run. Raises OSError if nothing can be started. Cancelled: the script and its children end."""
    output, errors = bytearray(), _ErrorLog(name)
    read_ends: list[_Pipe] = []
    overflow = asyncio.Event()

    def take(data: bytes) -> None:
        output.extend(data)
        if len(output) > LONGEST_OUTPUT:
            overflow.set()

    given = os.memfd_create("stdin", os.MFD_CLOEXEC)
    write_ends: list[int] = []
    try:
        for taker in (take, errors.take):
            read_end, write_end = os.pipe()
            write_ends.append(write_end)
            read_ends.append(_Pipe(read_end, taker))
        os.write(given, stdin)
        os.lseek(given, 0, os.SEEK_SET)
        process = await asyncio.create_subprocess_exec(
            *_tied(),
            script,
            "--json",
            stdin=given,
            stdout=write_ends[0],
            stderr=write_ends[1],
            env=environment,
            start_new_session=True,
        )
        while write_ends:
            os.close(write_ends.pop())
        status, endless = await _ended(process, overflow)
        for pipe in read_ends:
            pipe.finish()
    finally:
        for end in (given, *write_ends):
            os.close(end)
        for pipe in read_ends:
            pipe.close()
        errors.close()
    return Outcome(name, status, bytes(output[:LONGEST_OUTPUT]), errors.tail, endless)


async def _ended(process: asyncio.subprocess.Process, overflow: asyncio.Event) -> tuple[int, bool]:
    """Its status, and whether it had to be stopped."""
    waiting, overflowing = asyncio.ensure_future(process.wait()), asyncio.ensure_future(overflow.wait())
    try:
        await asyncio.wait({waiting, overflowing}, return_when=asyncio.FIRST_COMPLETED)
        stopped = not waiting.done()
    except asyncio.CancelledError:
        await settle(_end(process))
        raise
    finally:
        overflowing.cancel()
        waiting.cancel()
    if stopped:
        await settle(_end(process))
    return await process.wait(), stopped


async def _end(process: asyncio.subprocess.Process) -> None:
    """The script and what it has started, as far as that did not leave its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            async with asyncio.timeout(GRACE):
                await process.wait()
        except TimeoutError:
            continue
    # children may have ignored the first signal, after the script had obeyed it


class _Pipe:
    """The read end of a pipe of which somebody unknown may keep the other end."""

    def __init__(self, end: int, take: Callable[[bytes], None]) -> None:
        self._end, self._take = end, take
        os.set_blocking(end, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._read)

    def finish(self) -> None:
        """Reads what is in it now, and no more."""
        left = fcntl.fcntl(self._end, fcntl.F_GETPIPE_SZ) if self._end >= 0 else 0
        while left > 0 and (read := self._read()):
            left -= read

    def close(self) -> None:
        if self._end >= 0:
            self._loop.remove_reader(self._end)
            os.close(self._end)
            self._end = -1

    def _read(self) -> int:
        """How much was read; 0: nothing is there, or nothing will ever be."""
        if self._end < 0:
            return 0
        try:
            data = os.read(self._end, _CHUNK)
        except BlockingIOError:
            return 0
        if data:
            self._take(data)
        else:
            self.close()
        return len(data)


class _ErrorLog:
    """Puts standard error into the log, line by line. `tail`: the end of it, for errors."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._logged = 0
        self.tail = ""

    def take(self, data: bytes) -> None:
        self.tail = (self.tail + data.decode(errors="replace"))[-_TAIL:]
        self._logged += len(data)
        if self._logged > LONGEST_LOG:
            if self._logged - len(data) <= LONGEST_LOG:
                log.warning("%s: it says more than belongs in a log; the rest is left out", self._name)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)

    def close(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = b""

    def _line(self, line: bytes) -> None:
        log.info("%s: %s", self._name, line.decode(errors="replace"))


@cache
def _tied() -> list[str]:
    """A prefix that makes the kernel kill the script when this process dies, where util-linux is installed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
