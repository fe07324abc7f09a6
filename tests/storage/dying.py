"""Run as a program: makes, attaches and destroys an `ext` SR in processes that kill themselves while the n-th program
that they started is running, for every n; then does the same again to the end. That program begins only when its
starter is dead, as it may on a busy machine.

    python -m tests.storage.dying FOLDER DEVICE

Prints a JSON line for each: which program it died with, and what is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from services.storage.live import Live
from services.storage.options import StorageOptions
from services.storage.plugins import lifetime, mounted_point, program
from services.storage.plugins.bundled import bundled
from services.storage.plugins.ext import signature
from shared.errors import ApiError
from tests.storage.support import HOST_A, SR

LATE = 0.15
"""Seconds."""


def main(folder: Path, device: str) -> None:
    n = 1
    while True:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            die_with(n, tell, late(folder))
            asyncio.run(life(folder, device))
            os._exit(0)
        os.close(tell)
        _, status = os.waitpid(child, 0)
        with os.fdopen(told) as words:
            last = words.read()
        if not os.WIFSIGNALED(status):
            return
        again = os.fork()
        if again == 0:
            print(json.dumps({"died_with": last, **asyncio.run(recovery(folder, device))}), flush=True)
            os._exit(0)
        os.waitpid(again, 0)
        n += 1


def late(folder: Path) -> Path:
    """A folder whose `setpriv` takes its time."""
    script = folder / "late" / "setpriv"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nsleep {LATE}\nexec {program.find("setpriv")} "$@"\n')
    script.chmod(0o755)
    return script.parent


def die_with(n: int, tell: int, late: Path) -> None:
    start, count = program.start, 0

    async def fatal(
        arguments: list[str], environment: Mapping[str, str] | None = None, stdin: int = asyncio.subprocess.DEVNULL
    ) -> asyncio.subprocess.Process:
        nonlocal count
        count += 1
        if count == n:
            program.SYSTEM_PATH = f"{late}:{program.SYSTEM_PATH}"
        process = await start(arguments, environment, stdin)
        if count == n:
            os.write(tell, arguments[0].encode())
            os.kill(os.getpid(), signal.SIGKILL)
        return process

    for module in (program, mounted_point):
        vars(module)["start"] = fatal


async def life(folder: Path, device: str) -> None:
    await lifetime.begin(folder / "programs")
    plugins = bundled(StorageOptions(), folder, cast(Live, None))
    plugin, configuration = plugins["ext"], {"device": device}
    await plugin.sr.create(SR, configuration, "", "")
    await plugin.sr.destroy(await plugin.sr.attach(SR, configuration, HOST_A))
    for each in plugins.values():
        await each.close()


async def recovery(folder: Path, device: str) -> dict[str, object]:
    try:
        await life(folder, device)
    except ApiError as error:
        return {"failed": str(error)}
    left = [found.place for found in mounted_point.mounts() if found.place.startswith(str(folder))]
    return {"mounts": left, "blank": (await signature(device)).blank}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
