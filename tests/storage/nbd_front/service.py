"""Run as a program: a host with storage that serves one disk by NBD, to be killed.

    python -m tests.storage.nbd_front.service FOLDER

Prints its port when it listens.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from services.storage.nbd.front.exports import Exports
from services.storage.nbd.front.front import NbdFront
from services.storage.nbd.server import PROGRAMS
from services.storage.sockets import socket_folder
from shared.bus.contract import Empty
from shared.bus.memory import MemoryBroker
from shared.contracts.nbd import NBD_DISK, NBD_READING, NBD_SERVING, DiskRequest, Known, Reading, ServedDisk, Serving
from shared.contracts.storage import VdiRef
from tests.storage.support import HOST_A, SR, machine, with_disk, with_sr

ADDRESS = "127.0.0.1"


async def main(folder: Path) -> None:
    async with machine(folder / "state") as storage:
        host = storage[HOST_A]
        await with_sr(host, folder / "medium")
        location = await with_disk(host)
        broker = MemoryBroker()
        api, bus = await broker.connect("api"), await broker.connect("storage")

        async def serving(request: Known) -> Serving:
            if request.serving is not None:
                await asyncio.get_running_loop().create_future()
            return Serving([ADDRESS], tls=False)

        async def reading(_: Reading) -> Empty:
            return Empty()

        async def disk(_: DiskRequest) -> ServedDisk:
            return ServedDisk(VdiRef(sr=SR, location=location))

        await api.serve(NBD_SERVING, serving, host=HOST_A)
        await api.serve(NBD_DISK, disk, host=HOST_A)
        await api.serve(NBD_READING, reading, host=HOST_A)
        await api.start_consuming("api", host=HOST_A)
        exports = Exports(host, socket_folder(folder / "state", ""), PROGRAMS)
        front = NbdFront(
            HOST_A, bus, exports, 0, (folder, folder), changed=lambda: print(front.ports.get(ADDRESS), flush=True)
        )
        front.begin(lambda work, name: asyncio.create_task(work, name=name))
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
