"""The QEMU program of this machine, and starting it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil

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
    _, output = await run([path, "--version"], START_TIMEOUT)
    match = re.search(r"version (\d[\w.]*)", output)
    if match is None:
        raise ProgramError(f"{path} --version says: {output[:200]!r}")
    return match.group(1)


async def launch(command_line: list[str]) -> None:
    """Starts a QEMU that detaches itself; returns when it has. Raises `ProgramError` with its own words."""
    status, said = await run(command_line, START_TIMEOUT)
    if status != 0:
        raise ProgramError(_without_name(said) or f"it ended with status {status}")


async def run(command_line: list[str], timeout: float, *, until: bytes = b"") -> tuple[int | None, str]:
    """Exit status and output of a program; ends it when the output holds `until` (status None), or time is up."""
    try:
        program = await asyncio.create_subprocess_exec(
            *command_line,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise ProgramError(f"{command_line[0]}: {error.strerror}") from error
    output = bytearray()
    try:
        assert program.stdout is not None
        async with asyncio.timeout(timeout):
            while chunk := await program.stdout.read(65536):
                output += chunk
                if until and until in output:
                    return None, output.decode(errors="replace")
            status = await program.wait()
    except TimeoutError:
        raise ProgramError(f"no end after {timeout:.0f} s") from None
    finally:
        if program.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                program.kill()
            await program.wait()
    return status, output.decode(errors="replace")


def _without_name(said: str) -> str:
    lines = [re.sub(r"^\S*qemu-system-\w+: ", "", line) for line in said.strip().splitlines()]
    return "; ".join(lines[-3:])
