"""qemu-storage-daemon over an opened disk: its data by vhost-user, and all that NBD tells, for one worker of this host.

As a qemu-nbd (`nbd.server`) it belongs to who started it, and ends with the service.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any, Final, Self

from services.storage.nbd.address import Address
from services.storage.nbd.credentials import escaped
from services.storage.nbd.server import DRIVERS, PROGRAMS, NbdServer, Programs, named
from shared.contracts.storage import Backend

_NODE: Final = "disk"
_WRITE_IN_ORDER: Final = frozenset({"x86_64", "amd64", "i686"})
"""Processors on which a ring needs no barriers: Python has none."""


class DiskServer(NbdServer):
    """`vhost`: path of the socket for one client of the data; "" where there is none."""

    vhost = ""

    @classmethod
    async def serve(
        cls, backend: Backend, folder: Path, *, programs: Programs = PROGRAMS, daemon: str = "qemu-storage-daemon"
    ) -> Self:
        """As `start`. Without the program `daemon`, for a plug-in's own server, and on processors that write to memory
        in another order than they are told, there is NBD alone. Raises ApiError.
        """
        if backend.kind == "nbd" or platform.machine().lower() not in _WRITE_IN_ORDER or shutil.which(daemon) is None:
            return await cls.start(backend, folder, programs=programs)
        nbd = cls.socket(folder)
        vhost = nbd.with_suffix(".v")  # which is not longer
        command = [daemon, *daemon_arguments(backend, nbd, vhost, programs.clients)]
        try:
            server = await cls.launch(command, Address(path=str(nbd), export=_NODE), backend.path)
        except BaseException:
            vhost.unlink(missing_ok=True)
            raise
        server.vhost = str(vhost)
        return server

    async def close(self) -> None:
        await super().close()
        if self.vhost:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.vhost)


def daemon_arguments(backend: Backend, nbd: Path, vhost: Path, clients: int) -> list[str]:
    """Of qemu-storage-daemon. Raises ApiError for a disk that QEMU does not read."""
    image, image_format = named(backend)
    writable = "on" if backend.writable else "off"
    node: dict[str, Any] = {
        "driver": image_format,
        "node-name": _NODE,
        "read-only": not backend.writable,
        "file": {"driver": DRIVERS[backend.kind], "filename": image},
    }
    if backend.shared:
        node["file"]["locking"] = "off"
    if backend.direct:
        node["cache"] = {"direct": True}
    if backend.writable:
        node |= {"discard": "unmap", "detect-zeroes": "unmap"}
    return [
        *("--blockdev", json.dumps(node)),
        *("--nbd-server", f"addr.type=unix,addr.path={escaped(nbd)},max-connections={clients}"),
        *("--export", f"type=nbd,id=nbd,node-name={_NODE},writable={writable}"),
        "--export",
        f"type=vhost-user-blk,id=vhost,node-name={_NODE},writable={writable},addr.type=unix,addr.path={escaped(vhost)}",
    ]
