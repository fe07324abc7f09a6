"""What a simulated host does with real images, by qemu-img. It never outlives the service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from typing import NamedTuple

import msgspec

from services.vm.qemu.disks.nodes import FORMATS
from shared.contracts.storage import Backend as DiskBackend
from shared.errors import ApiError

PROGRAM = "qemu-img"
FORMAT_OF = {driver: name for name, driver in FORMATS.items()}


class Image(NamedTuple):
    """`format`: as `shared.contracts.storage.Backend` says it. `size`: bytes."""

    path: str
    format: str
    size: int


async def chain(backend: DiskBackend) -> list[Image]:
    """The image and those below it."""
    text = await _run("info", "-U", "--output=json", "--backing-chain", "-f", FORMATS[backend.format], backend.path)
    return [
        Image(item["filename"], FORMAT_OF.get(item["format"], item["format"]), item["virtual-size"])
        for item in msgspec.json.decode(text)
    ]


async def commit(top: Image, base: Image) -> None:
    """What is in the images from `top` down to `base` goes into `base`."""
    await _run("commit", "-q", "-d", "-f", FORMATS[top.format], "-b", base.path, top.path)


async def rebase(image: Image, base: Image, name: str) -> None:
    """Only what the image says is below it."""
    await _run("rebase", "-q", "-u", "-f", FORMATS[image.format], "-F", FORMATS[base.format], "-b", name, image.path)


async def resize(image: Image, size: int) -> None:
    await _run("resize", "-q", "-f", FORMATS[image.format], image.path, str(size))


async def copy(source: Image, target: DiskBackend) -> None:
    await _run(
        *("convert", "-n", "-U", "-f", FORMATS[source.format], "-O", FORMATS[target.format]), source.path, target.path
    )


async def _run(*arguments: str) -> bytes:
    """Raises INTERNAL_ERROR with its own words."""
    setpriv = shutil.which("setpriv")
    tied = (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
    try:
        process = await asyncio.create_subprocess_exec(
            *(*tied, PROGRAM, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise ApiError("INTERNAL_ERROR", f"{PROGRAM}: {error.strerror}") from error
    try:
        output, said = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
    if process.returncode:
        raise ApiError("INTERNAL_ERROR", f"{PROGRAM} {arguments[0]}: {said.decode(errors='replace').strip()}")
    return output
