"""Running qemu-img: without blocking, with a time limit, and never outliving the service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from pathlib import Path

from services.storage.plugins.errors import Failure, backend_failure, plugin_failed
from services.storage.plugins.interface import Report
from services.storage.plugins.lifetime import inherited
from shared.errors import ApiError

_PROGRESS = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_READ_ONLY = "Read-only file system"
_NO_SPACE = "No space left on device"


class NoSpace(Exception):
    """The file system that holds the image is full."""


class QemuImg:
    """`program`: name or path. `timeout`: seconds for all but `convert`, which takes as long as the disk is big."""

    def __init__(self, program: str, timeout: float) -> None:
        self._program, self._timeout = program, timeout

    async def resize(self, image: Path, size: int) -> None:
        await self._run(["resize", "-q", "-f", "qcow2", str(image), str(size)], Failure.VDI_RESIZE, self._timeout)

    async def convert(self, source: Path, target: Path, report: Report) -> None:
        await self._run(
            ["convert", "-p", "-f", "qcow2", "-O", "qcow2", str(source), str(target)], Failure.VDI_CLONE, None, report
        )

    async def commit(self, top: Path, base: str, rate: int) -> None:
        """Writes what an image holds into its backing file, a name in the same folder, and leaves the image as it is.

        `rate`: bytes a second, 0 for as fast as it goes. Killed and run again, it has the same result.
        """
        limit = ["-r", str(rate)] if rate else []
        await self._run(["commit", "-q", "-d", "-f", "qcow2", *limit, "-b", base, str(top)], Failure.IO, None)

    async def rebase(self, image: Path, backing: str) -> None:
        """Only the name in the header: the new backing file, "" for none, reads as the old one did."""
        base = ["-b", backing, "-F", "qcow2"] if backing else ["-b", ""]
        await self._run(["rebase", "-q", "-u", "-f", "qcow2", *base, str(image)], Failure.IO, self._timeout)

    async def _run(
        self, arguments: list[str], failure: Failure, timeout: float | None, report: Report | None = None
    ) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *_tied(),
                self._program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},
                pass_fds=inherited(),
            )
        except OSError as error:
            raise _missing(self._program, error.strerror) from error
        try:
            async with asyncio.timeout(timeout):
                _, stderr = await asyncio.gather(_follow(process, report), _read_all(process))
                status = await process.wait()
        except TimeoutError:
            raise plugin_failed(f"{self._program} {arguments[0]} did not end within {timeout} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
        if status:
            text = stderr.decode(errors="replace").strip()
            if _NO_SPACE in text:
                raise NoSpace
            if _READ_ONLY in text:
                raise backend_failure(Failure.NO_WRITE, f"qemu-img {arguments[0]} cannot write", text)
            if status == 127 and _tied():
                raise _missing(self._program, text)
            raise backend_failure(failure, f"qemu-img {arguments[0]} failed", text or f"status {status}")


def _tied() -> list[str]:
    """A prefix that makes the kernel kill the program when this process dies, where util-linux is installed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _missing(program: str, reason: object) -> ApiError:
    return plugin_failed(f"{program} cannot be run; it comes with the Debian package qemu-utils", reason)


async def _follow(process: asyncio.subprocess.Process, report: Report | None) -> None:
    """Reads the progress line, which is rewritten in place."""
    assert process.stdout is not None
    while text := await process.stdout.read(4096):
        figures = _PROGRESS.findall(text)
        if figures and report is not None:
            await report(float(figures[-1]) / 100)


async def _read_all(process: asyncio.subprocess.Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.read()
