"""The QEMU program of this machine, and starting it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

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


class _Program(asyncio.SubprocessProtocol):
    """`exited`: with its status. `finished`: it has exited and its output is complete. `found`: so is `until`."""

    def __init__(self, until: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.found: asyncio.Future[None] = loop.create_future()
        self._until = until
        self._output = bytearray()
        self._transport: asyncio.BaseTransport | None = None

    def text(self) -> str:
        return self._output.decode(errors="replace")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._output += data
        if self._until and self._until in self._output and not self.found.done():
            self.found.set_result(None)

    def process_exited(self) -> None:
        self.exited.set_result(cast(asyncio.SubprocessTransport, self._transport).get_returncode() or 0)

    def connection_lost(self, error: Exception | None) -> None:
        self.finished.set_result(None)


@asynccontextmanager
async def _started(command_line: list[str], timeout: float, until: bytes = b"") -> AsyncIterator[_Program]:
    """Kills what still runs at the end."""
    try:
        transport, program = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Program(until),
            *command_line,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise ProgramError(f"{command_line[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout):
            yield program
    except TimeoutError:
        raise ProgramError(f"no end after {timeout:.0f} s") from None
    finally:
        if not program.exited.done():
            with contextlib.suppress(ProcessLookupError):
                transport.kill()
            await program.exited
        transport.close()


def _without_name(said: str) -> str:
    lines = [re.sub(r"^\S*qemu-system-\w+: ", "", line) for line in said.strip().splitlines()]
    return "; ".join(lines[-3:])
