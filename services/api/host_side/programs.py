"""Running a program to its end: its input, its output, its time.

Not by the event loop's own means: uvloop's children inherit its descriptors. Input and output are files in memory, so a
program that leaves something running behind it is over when it has ended itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

MOST_OUTPUT = 8 << 20
"""Bytes of output that are kept."""


@dataclass(frozen=True, slots=True)
class Ended:
    """`status`: exit status, or minus the number of the signal that killed it."""

    status: int
    stdout: str
    stderr: str

    @property
    def signal(self) -> str:
        """Such as SIGKILL; "" when it ended by itself."""
        return signal.Signals(-self.status).name if self.status < 0 else ""


class TimedOut(Exception):
    """It took too long and was killed, with all that it had started."""

    def __init__(self, ended: Ended) -> None:
        super().__init__("it took too long")
        self.ended = ended


async def run(
    command: Sequence[str], *, stdin: bytes = b"", timeout: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Raises OSError when it cannot be started, `TimedOut`. When the caller is cancelled it is killed."""
    with _memory("in") as given, _memory("out") as out, _memory("err") as err:
        given.write(stdin)
        given.seek(0)
        process = _spawn(command, given, out, err, environment)

        def ended(status: int) -> Ended:
            return Ended(status, _text(out), _text(err))

        async with _watched(process) as exited:
            try:
                async with asyncio.timeout(timeout):
                    return ended(await asyncio.shield(exited))
            except TimeoutError:
                _kill(process)
                raise TimedOut(ended(await exited)) from None


def _spawn(
    command: Sequence[str], given: IO[bytes], out: IO[bytes], err: IO[bytes], environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=given, stdout=out, stderr=err, env=environment, cwd="/", start_new_session=True
    )


@asynccontextmanager
async def _watched(process: subprocess.Popen[bytes]) -> AsyncIterator[asyncio.Future[int]]:
    """Its exit status when it has ended; what still runs at the end is killed."""
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
            _kill(process)
            await asyncio.shield(exited)
        os.close(descriptor)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started in its session; it is not reaped yet, so its number is still its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _memory(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b", buffering=0)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_OUTPUT).decode(errors="replace")
