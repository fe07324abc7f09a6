"""Running a driver: without blocking, without a time limit, and never outliving the service unless it says so.

Its output goes to files in memory: a child that it leaves behind and that keeps them open holds nobody up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

MOST_OUTPUT = 64 << 20
"""Bytes of output that are looked at."""


@dataclass(frozen=True, slots=True)
class Ended:
    """`status`: exit status, or minus the number of the signal that killed it."""

    status: int
    stdout: str
    stderr: str

    @property
    def trouble(self) -> str:
        """What is wrong with how it ended; "" when nothing is."""
        if self.status < 0:
            return f"received signal: {signal.Signals(-self.status).name}"
        return "non-zero exit" if self.status else ""


async def run(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """As long as it takes. Raises OSError when it cannot be started. Cancelled: it is killed, with its session."""
    with _memory("out") as out, _memory("err") as err:
        process = _spawn([*_tied(), *command], environment, out, err)
        async with _watched(process) as exited:
            status = await asyncio.shield(exited)
        return Ended(status, _text(out), _text(err))


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], out: IO[bytes], err: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Not by the event loop's own means: uvloop's children inherit its descriptors."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env=dict(environment),
        cwd="/",
        start_new_session=True,
    )


def _tied() -> list[str]:
    """A prefix that makes the kernel kill the program when this process dies, where util-linux is installed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


@asynccontextmanager
async def _watched(process: subprocess.Popen[bytes]) -> AsyncIterator[asyncio.Future[int]]:
    """Its exit status when it has ended. What runs when the caller leaves is killed."""
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()
    descriptor = os.pidfd_open(process.pid)

    def reap() -> None:
        loop.remove_reader(descriptor)
        status = process.wait()
        if not exited.done():
            exited.set_result(status)

    loop.add_reader(descriptor, reap)
    try:
        yield exited
    finally:
        if not exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: the number is still its own
            await asyncio.shield(exited)
        os.close(descriptor)


def _memory(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b", buffering=0)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_OUTPUT).decode(errors="replace")
