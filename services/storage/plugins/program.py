"""Running a system's program for a plug-in: no shell, no terminal, and never outliving the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from services.storage.plugins.errors import plugin_failed
from services.storage.plugins.lifetime import inherited
from shared.errors import ApiError

log = logging.getLogger("storage.program")

SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
"""Where programs are looked for: those of an administrator are often not on a service's path."""

PACKAGES: Mapping[str, str] = {
    "blkdiscard": "util-linux",
    "blkid": "util-linux",
    "mount": "mount",
    "umount": "mount",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "wipefs": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "mount.nfs": "nfs-common",
    "showmount": "nfs-common",
    "mount.cifs": "cifs-utils",
    "smbclient": "smbclient",
    "lvm": "lvm2",
    "qemu-img": "qemu-utils",
}
"""Debian packages of the programs that plug-ins run."""


class Output(NamedTuple):
    """`status`: as of a process, negative for a signal."""

    status: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """What the program says of its failure."""
        return self.stderr.strip() or self.stdout.strip() or f"status {self.status}"


Run = Callable[[list[str]], Awaitable[Output]]


def find(program: str) -> str:
    """Its path. Raises SR_BACKEND_FAILURE, which names the package."""
    path = shutil.which(program, path=SYSTEM_PATH)
    if path is None:
        raise missing(program, "no such program")
    return path


def missing(program: str, reason: object) -> ApiError:
    package = PACKAGES.get(program)
    origin = f"; it comes with the Debian package {package}" if package else ""
    return plugin_failed(f"{program} cannot be run{origin}", reason)


async def run(
    arguments: list[str], environment: Mapping[str, str] | None = None, timeout: float | None = None
) -> Output:
    """The first of the arguments is the program. `environment`: added to the service's own; secrets go there, as
    arguments can be seen by everybody. `timeout`: seconds, only for what the kernel cannot hold up.

    Cancelled: the program is killed. Raises SR_BACKEND_FAILURE when it is not there, or takes too long.
    """
    program = arguments[0]
    process = await start(arguments, environment)
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        raise plugin_failed(f"{program} did not end within {timeout} s") from None
    finally:
        await end(process)
    status = process.returncode
    assert status is not None
    output = Output(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if status:
        log.info("%s ended with %s: %s", " ".join(arguments), status, output.words)
    return output


async def start(
    arguments: list[str], environment: Mapping[str, str] | None = None, stdin: int = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """The kernel kills it when this process dies, where util-linux is installed; the next service waits for it."""
    program = find(arguments[0])
    tie = shutil.which("setpriv", path=SYSTEM_PATH)
    try:
        return await asyncio.create_subprocess_exec(
            *([tie, "--pdeathsig", "KILL", "--"] if tie else []),
            program,
            *arguments[1:],
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", "PATH": SYSTEM_PATH, **(environment or {})},
            pass_fds=inherited(),
        )
    except OSError as error:
        raise missing(arguments[0], error.strerror) from error


async def end(process: asyncio.subprocess.Process) -> None:
    """Kills it if it still runs, and waits until it is gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
