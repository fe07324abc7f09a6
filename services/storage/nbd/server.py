"""qemu-nbd processes: an opened disk becomes an NBD export on a Unix socket, for readers and writers on this host.

A server belongs to who started it: it ends with `close`, and with the service (the kernel kills it then). Its socket is
a file of the service's folder for sockets (`services.storage.sockets`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from services.storage.nbd.address import Address, parse
from services.storage.nbd.credentials import escaped
from services.storage.plugins.errors import Failure, backend_failure, plugin_failed
from shared.contracts.storage import Backend
from shared.errors import ApiError

log = logging.getLogger("storage.nbd")

_SUFFIX: Final = ".nbd"
_START_WITHIN: Final = 30.0
"""Seconds: storage may be slow to open."""
_GREETS_WITHIN: Final = 1.0
"""Seconds, after which it is tried anew: the server may have ended meanwhile."""
_ENDS_WITHIN: Final = 10.0
"""Seconds after which a server that is told to end is killed."""
_HEARD: Final = 4096
"""Bytes of a server's words that are kept and logged."""
_LOOK_EVERY: Final = 0.002
"""Seconds. qemu-nbd has no way to say that it listens but that it does."""
_LONGEST_PATH: Final = 107
"""Bytes of a Unix socket's path."""
_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""For glibc: the buffers of requests are used again. Otherwise each is mapped anew, and half of qemu-nbd's time goes
into pages that are touched for the first time.
"""
_FORMATS: Final = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc"}
"""What QEMU calls the formats of backends."""
DRIVERS: Final = {"file": "file", "block": "host_device"}
"""And their kinds."""


@dataclass(frozen=True, slots=True)
class Programs:
    """`qemu_nbd`: name or path. `clients`: connections to one export at the same time."""

    qemu_nbd: str = "qemu-nbd"
    clients: int = 16


PROGRAMS: Final = Programs()


class NbdServer:
    """One export. `address`: where it is. It may be somebody else's server (a plug-in's), which is left alone."""

    def __init__(self, address: Address, process: asyncio.subprocess.Process | None = None) -> None:
        self.address = address
        self._process = process
        self._said = ""
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        backend: Backend,
        folder: Path,
        *,
        bitmap: str = "",
        guarded: bool = False,
        programs: Programs = PROGRAMS,
    ) -> Self:
        """Listens when it returns. The disk is activated, and stays so until the server is closed.

        `bitmap`: of a qcow2 image, offered as the context `qemu:dirty-bitmap:<bitmap>`. `guarded`: for clients that may
        try anything: somebody else's server, which could let them write, stands behind a qemu-nbd of ours. Raises
        ApiError.
        """
        if backend.kind == "nbd" and not guarded:
            try:
                return cls(parse(backend.path))
            except ValueError as error:
                raise plugin_failed(str(error)) from error
        path = cls.socket(folder)
        command = [programs.qemu_nbd, *arguments(backend, path, bitmap, programs.clients)]
        return await cls.launch(command, Address(path=str(path)), backend.path)

    @staticmethod
    def socket(folder: Path) -> Path:
        """A new one. Raises ApiError for a folder whose path is too long."""
        path = folder / f"{secrets.token_hex(6)}{_SUFFIX}"
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise plugin_failed(f"the path of the socket {path} is longer than {_LONGEST_PATH} bytes")
        return path

    @classmethod
    async def launch(cls, command: Sequence[str], address: Address, image: str) -> Self:
        """Listens at the address when it returns. `command`: qemu-nbd's, with its name. Raises ApiError."""
        server = cls(address, await _spawn(command))
        try:
            await server._listening(image)
        except BaseException:
            await server.close()
            raise
        return server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def close(self) -> None:
        """Returns when the image is not open any more. What writers have flushed is on the disk."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        await asyncio.shield(self._terminated(self._process))
        if self._hearing is not None:
            self._hearing.cancel()
        if self.address.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address.path)

    async def _terminated(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(_ENDS_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def ended(self) -> None:
        """Returns when the process has ended, for whatever reason. Never for somebody else's."""
        if self._process is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._process.wait()

    async def _listening(self, image: str) -> None:
        process = self._process
        assert process is not None
        assert process.stderr is not None
        self._hearing = hearing = asyncio.create_task(self._hear(process.stderr, image), name=f"words of {image}")
        deadline = time.monotonic() + _START_WITHIN
        while not await _answers(self.address):
            if hearing.done():  # it has closed its standard error: it has ended
                raise _failed(self._said.strip() or f"status {await process.wait()}", image)
            if time.monotonic() > deadline:
                raise plugin_failed(f"qemu-nbd does not listen within {_START_WITHIN:.0f} s", image)
            await asyncio.wait({hearing}, timeout=_LOOK_EVERY)

    async def _hear(self, words: asyncio.StreamReader, image: str) -> None:
        """All that it says is taken, or it would stop: clients that do not get in are worth words to it."""
        while heard := await words.read(_HEARD):
            if len(self._said) < _HEARD:
                self._said += heard.decode(errors="replace")
                log.debug("qemu-nbd over %s: %s", image, heard.decode(errors="replace").strip())


def arguments(backend: Backend, path: Path, bitmap: str = "", clients: int = 16) -> list[str]:
    """Of qemu-nbd. Raises ApiError for a disk that QEMU does not read."""
    image, image_format = named(backend)
    access = ["--discard=unmap", "--detect-zeroes=unmap"] if backend.writable else ["--read-only"]
    tracked = [f"--bitmap={bitmap}"] if bitmap else []
    uncached = ["--cache=none"] if backend.direct else []
    listening = ["--persistent", f"--shared={clients}", f"--socket={path}", *uncached]
    if backend.shared and backend.kind != "nbd":
        file = f"file.driver={DRIVERS[backend.kind]},file.filename={escaped(image)},file.locking=off"
        return [*listening, *access, *tracked, "--image-opts", "--", f"driver={image_format},{file}"]
    return [*listening, f"--format={image_format}", *access, *tracked, "--", image]


def named(backend: Backend) -> tuple[str, str]:
    """A disk and its format, as QEMU calls them. Raises ApiError for one that QEMU does not read."""
    image = _remote(backend) if backend.kind == "nbd" else backend.path
    if backend.format not in _FORMATS or not image.startswith(("/", "nbd")):
        raise plugin_failed(f"no NBD server for a disk of kind {backend.kind!r} and format {backend.format!r}")
    return image, _FORMATS[backend.format]


def _remote(backend: Backend) -> str:
    """As a URI, whose export's name may have any character. Raises ApiError."""
    try:
        address = parse(backend.path)
    except ValueError as error:
        raise plugin_failed(str(error)) from error
    name = quote(address.export, safe="")
    return f"nbd+unix:///{name}?socket={quote(address.path)}" if address.path else str(address)


async def _spawn(command: Sequence[str]) -> asyncio.subprocess.Process:
    setpriv = shutil.which("setpriv")
    tied = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    try:
        return await asyncio.create_subprocess_exec(
            *tied,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **_MEMORY, "LC_ALL": "C"},
        )
    except OSError as error:
        raise _missing(command[0], error.strerror) from error


async def _answers(address: Address) -> bool:
    """Whether the server greets: it listens before it opens the image, when it may fail, or miss that it is to end."""
    try:
        if address.path:
            reader, writer = await asyncio.open_unix_connection(address.path)
        else:
            reader, writer = await asyncio.open_connection(address.host, address.port)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    try:
        async with asyncio.timeout(_GREETS_WITHIN):
            return bool(await reader.read(1))
    except (TimeoutError, ConnectionError):
        return False
    finally:
        writer.close()


def _failed(words: str, image: str) -> ApiError:
    if "No such file or directory" in words and "exec" in words:
        return _missing("qemu-nbd", words)
    return backend_failure(Failure.VDI_LOAD, f"the disk {image} cannot be opened", words)


def _missing(program: str, reason: object) -> ApiError:
    return plugin_failed(f"{program} cannot be run; it comes with the Debian package qemu-utils", reason)
