"""A disk of one host in reach of another: served there inside TLS, and again on a Unix socket where it is used.

Both ends are qemu-nbd. The one that serves takes the peer alone, and ends when that leaves.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.storage.nbd.address import Address
from services.storage.nbd.credentials import ID, Identity, argument, escaped, laid_out
from services.storage.nbd.server import PROGRAMS, NbdServer, Programs, named
from shared.contracts.storage import Backend
from shared.errors import ApiError, internal_error

_ATTEMPTS: Final = 5
"""To find a port that nobody else takes first."""
_TAKEN: Final = "Address already in use"
_CLIENTS: Final = 8
"""Connections at once to a disk that is served to one host."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a disk is served. `certificate`: what is shown there; `name`: one of the names in it (the host's uuid)."""

    address: str
    port: int
    export: str
    certificate: str
    name: str


@asynccontextmanager
async def opened(
    backend: Backend, folder: Path, address: str, own: Identity, peer: str, programs: Programs = PROGRAMS
) -> AsyncIterator[tuple[Door, NbdServer]]:
    """Serves an opened disk at an address of this host to who shows `peer` (PEM). Raises ApiError."""
    shown = own.shown()
    with laid_out(folder, "server", shown, peer) as place:
        export = secrets.token_hex(16)
        for attempt in range(_ATTEMPTS):
            port = _free_port(address)
            door = Door(address, port, export, shown.certificate, own.host)
            try:
                server = await NbdServer.launch(
                    [programs.qemu_nbd, *_serving(backend, door, place)], Address(host=address, port=port), backend.path
                )
            except ApiError as error:
                if attempt == _ATTEMPTS - 1 or _TAKEN not in str(error):
                    raise
                continue
            break
        async with server:
            yield door, server


@asynccontextmanager
async def entered(door: Door, folder: Path, own: Identity, programs: Programs = PROGRAMS) -> AsyncIterator[NbdServer]:
    """The disk behind a door as an export on a Unix socket of this host, for a reader and writer. Raises ApiError."""
    with laid_out(folder, "client", own.shown(), door.certificate) as place:
        path = NbdServer.socket(folder)
        where = f"the disk at {door.address} port {door.port}"
        server = await NbdServer.launch(
            [programs.qemu_nbd, *_passing(door, place, path)], Address(path=str(path)), where
        )
        async with server:
            yield server


def _free_port(address: str) -> int:
    """Until somebody else takes it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.create_server((address, 0), family=family) as free:
            return int(free.getsockname()[1])
    except OSError as error:
        raise internal_error(f"no disk can be served at {address}: {error}") from error


def _serving(backend: Backend, door: Door, place: Path) -> list[str]:
    image, image_format = named(backend)
    return [
        *(argument(place, "server"), f"--tls-creds={ID}", f"--bind={door.address}", f"--port={door.port}"),
        *(f"--export-name={door.export}", f"--shared={_CLIENTS}", f"--format={image_format}"),
        *("--discard=unmap", "--detect-zeroes=unmap", "--", image),
    ]


def _passing(door: Door, place: Path, path: Path) -> list[str]:
    options = {
        "driver": "nbd",
        "server.type": "inet",
        "server.host": door.address,
        "server.port": door.port,
        "export": door.export,
        "tls-creds": ID,
        "tls-hostname": door.name,
    }
    image = ",".join(f"{name}={escaped(value)}" for name, value in options.items())
    return [
        *(argument(place, "client"), "--persistent", f"--shared={_CLIENTS}", f"--socket={path}", "--image-opts"),
        *("--discard=unmap", "--detect-zeroes=unmap", "--", image),
    ]
