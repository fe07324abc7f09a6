"""The QEMU program of this machine, and starting it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

START_TIMEOUT = 60.0
"""Seconds from its start until QEMU has built the machine and detached itself."""


class ProgramError(Exception):
    """QEMU is not there or does not start; the text is for people."""


def locate(binary: str) -> str:
    path = shutil.which(binary)
    if path is None:
        raise ProgramError(f"{binary} is not installed (Debian: apt-get install qemu-system-x86)")
    return path


async def version(path: str) -> str:
    """Such as 7.2.22."""
    output = await run([path, "--version"], START_TIMEOUT)
    match = re.search(r"version (\d[\w.]*)", output)
    if match is None:
        raise ProgramError(f"{path} --version says: {output[:200]!r}")
    return match.group(1)


async def launch(command_line: list[str]) -> None:
    """Starts a QEMU that detaches itself; returns when it has. Raises `ProgramError` with its own words."""
    async with _started(command_line, START_TIMEOUT) as program:
        # its end is what counts: the detached process may hold on to the pipes
        status = await program.exited
        if status != 0:
            await program.finished
            raise ProgramError(_without_name(program.text()) or f"it ended with status {status}")


async def run(command_line: list[str], timeout: float, *, until: bytes = b"") -> str:
    """A program's output. It is ended when the output holds `until`; `ProgramError` when it takes too long."""
    async with _started(command_line, timeout, until) as program:
        await asyncio.wait((program.finished, program.found), return_when=asyncio.FIRST_COMPLETED)
        return program.text()


class _Program(asyncio.Protocol):
    """`exited`: with its status. `finished`: its output is complete. `found`: so is `until`."""

    def __init__(self, until: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.found: asyncio.Future[None] = loop.create_future()
        self._until = until
        self._output = bytearray()

    def text(self) -> str:
        return self._output.decode(errors="replace")

    def data_received(self, data: bytes) -> None:
        self._output += data
        if self._until and self._until in self._output and not self.found.done():
            self.found.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.finished.set_result(None)


@asynccontextmanager
async def _started(command_line: list[str], timeout: float, until: bytes = b"") -> AsyncIterator[_Program]:
    """Kills what still runs at the end."""
    process, output = _spawn(command_line)
    loop = asyncio.get_running_loop()
    try:
        pipe, program = await loop.connect_read_pipe(lambda: _Program(until), output)
    except BaseException:
        process.kill()
        process.wait()
        raise
    descriptor = os.pidfd_open(process.pid)

    def exited() -> None:
        loop.remove_reader(descriptor)
        program.exited.set_result(process.wait())

    loop.add_reader(descriptor, exited)
    try:
        async with asyncio.timeout(timeout):
            yield program
    except TimeoutError:
        raise ProgramError(f"no end after {timeout:.0f} s") from None
    finally:
        if not program.exited.done():
            process.kill()
            await program.exited
        os.close(descriptor)
        pipe.close()


def _spawn(command_line: list[str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """A child and its output. Not by the loop's own means: uvloop's children inherit its descriptors, and a detached
    QEMU would keep them open for as long as it lives."""
    reading, writing = os.pipe()
    output = os.fdopen(reading, "rb", buffering=0)
    try:
        return subprocess.Popen(command_line, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing), output
    except OSError as error:
        output.close()
        raise ProgramError(f"{command_line[0]}: {error.strerror}") from error
    finally:
        os.close(writing)


def _without_name(said: str) -> str:
    lines = [re.sub(r"^\S*qemu-system-\w+: ", "", line) for line in said.strip().splitlines()]
    return "; ".join(lines[-3:])
