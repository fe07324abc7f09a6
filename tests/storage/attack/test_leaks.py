"""What a service that was killed may have left running."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil

from services.storage.nbd.server import NbdServer
from services.storage.sockets import socket_folder
from shared.contracts.storage import Backend


async def test_a_server_that_was_being_started_when_its_service_was_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    """It is not tied to the service before it is a program of its own, and would keep its image locked."""
    folder, elsewhere, image = (
        socket_folder(tmp_path, str(tmp_path / "run")),
        tmp_path / "elsewhere",
        tmp_path / "image",
    )
    image.write_bytes(bytes(1 << 20))
    elsewhere.mkdir()
    backend = Backend(dp="task/1", kind="file", path=str(image), format="raw", writable=False)
    async with await NbdServer.start(backend, folder) as left, await NbdServer.start(backend, elsewhere) as other:
        reader, writer = await asyncio.open_unix_connection(left.address.path)
        await reader.readexactly(8)  # it greets
        assert socket_folder(tmp_path, str(tmp_path / "run")) == folder
        async with asyncio.timeout(10):
            await reader.read()  # until it has ended
        writer.close()
        assert psutil.Process(other.pid).is_running(), "somebody else's"
        assert os.listdir(folder) == []
