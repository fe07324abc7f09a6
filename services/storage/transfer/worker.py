"""One transfer, in a process of its own: disks on one side, a client on the other; see `job` for what is said."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from services.storage.formats.interface import FormatError
from services.storage.nbd.client import NbdError
from services.storage.transfer import job as records
from services.storage.transfer.checksum import checksum
from services.storage.transfer.client import Client, NoClient
from services.storage.transfer.codecs import Encoding, decode, encode
from services.storage.transfer.copying import copy
from services.storage.transfer.disk import Disk
from services.storage.transfer.job import Ended, Failed, Job, Progress, Ready, Told
from services.storage.vhost.memory import Memory

REPORT_EVERY: Final = 0.25
"""Seconds."""
PLAN_WITHIN: Final = 5.0
"""Seconds after which a client may come although the length of what it will get is not known yet."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Tell = Callable[[Told], None]


async def work(job: Job, tell: Tell) -> Ended:
    """The whole transfer. Raises what `blame` knows."""
    async with AsyncExitStack() as stack:
        memory = Memory()
        stack.callback(memory.close)

        async def opened(disk: records.Disk | None) -> Disk | None:
            if disk is None:
                return None
            found = await Disk.open(disk, memory)
            stack.push_async_callback(found.close)
            return found

        disk, base, target = await opened(job.disk), await opened(job.base), await opened(job.target)
        assert disk is not None
        if job.way == "copy":
            assert target is not None
            return await _copy(job, disk, target, base, tell)
        if job.way == "checksum":
            return await _checksum(disk, tell)
        listener = socket.socket(socket.AF_UNIX)
        stack.callback(listener.close)
        listener.bind(job.path)
        listener.listen(1)
        if job.way == "import":
            return await _import(job, disk, listener, memory, tell)
        return await _export(job, disk, base, listener, memory, tell)


async def _export(
    job: Job, disk: Disk, base: Disk | None, listener: socket.socket, memory: Memory, tell: Tell
) -> Ended:
    planning = asyncio.create_task(encode(job, disk, base))
    try:
        planned, _ = await asyncio.wait({planning}, timeout=PLAN_WITHIN)
        tell(Ready(planning.result().length if planned else None))
        client = await Client.come(listener, job.patience, memory, lends=job.lent)
        try:
            async with _Reporting(tell, lambda: _far(client, planning, disk)):
                await (await planning).write(client)
                await client.finish()
        finally:
            client.close()
    finally:
        planning.cancel()
        await asyncio.gather(planning, return_exceptions=True)
    return Ended(client.sent, disk.data)


def _far(client: Client, planning: asyncio.Task[Encoding], disk: Disk) -> float:
    if not planning.done():
        return 0.0
    length = planning.result().length
    return client.sent / length if length else disk.reached / disk.size


async def _import(job: Job, disk: Disk, listener: socket.socket, memory: Memory, tell: Tell) -> Ended:
    tell(Ready())
    client = await Client.come(listener, job.patience, memory, lends=job.lent)
    try:
        async with _Reporting(tell, lambda: disk.reached / disk.size if disk.size else 0.0):
            await decode(job, client, disk)
    finally:
        client.give_back()
        client.close()
    return Ended(client.received, disk.data)


async def _copy(job: Job, disk: Disk, target: Disk, base: Disk | None, tell: Tell) -> Ended:
    tell(Ready())
    async with _Reporting(tell, lambda: disk.reached / disk.size if disk.size else 0.0):
        await copy(disk, target, base, job.changed, job.zeroed)
    return Ended(0, target.data)


async def _checksum(disk: Disk, tell: Tell) -> Ended:
    tell(Ready())
    async with _Reporting(tell, lambda: disk.reached / disk.size if disk.size else 0.0):
        return Ended(0, disk.data, await checksum(disk))


class _Reporting:
    """Tells now and then how far something is."""

    def __init__(self, tell: Tell, far: Callable[[], float]) -> None:
        self._tell, self._far = tell, far

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._report())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _report(self) -> None:
        before = 0.0
        while True:
            await asyncio.sleep(REPORT_EVERY)
            far = min(1.0, self._far())
            if far > before:
                self._tell(Progress(far))
                before = far


def blame(error: Exception) -> Failed:
    """What the service is told of a failure."""
    match error:
        case NbdError() if error.errno in _FULL:
            return Failed("full", str(error))
        case NbdError():
            return Failed("disk", str(error))
        case NoClient():
            return Failed("client", str(error))
        case FormatError():
            return Failed("format", str(error))
        case _:
            return Failed("internal", f"{type(error).__name__}: {error}")


async def _until_abandoned(work: asyncio.Task[None]) -> None:
    """The service's end of our standard input closes when it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        await reader.read()
        work.cancel()
    finally:
        transport.close()


def _tell(told: Told) -> None:
    os.write(sys.stdout.fileno(), records.pack(told))


async def main() -> int:
    line = sys.stdin.buffer.readline()
    if not line:
        return 1  # there is no job, and nobody to tell
    job = records.unpack_job(line)

    async def run() -> None:
        try:
            _tell(await work(job, _tell))
        except Exception as error:
            failed = blame(error)
            if failed.kind == "internal":
                traceback.print_exc()
            _tell(failed)

    working = asyncio.create_task(run())
    watching = asyncio.create_task(_until_abandoned(working))
    try:
        await asyncio.wait({working})
        return 1 if working.cancelled() else 0
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
