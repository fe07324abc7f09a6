"""What two hosts show each other before disks go between them: the certificates that they have for other hosts.

A host takes the one certificate that it was told of, and no other: no authority, no name decides.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from shared.errors import internal_error

Endpoint = Literal["server", "client"]

SUFFIX: Final = ".tls"
"""Of folders with files for one QEMU program."""
ID: Final = "tls"
"""Of the object in that program."""
_SHOWN: Final = ".pool.pem"
"""Ends the names of the files with what hosts show each other."""
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM: a certificate, and its key."""

    certificate: str
    key: str


class Identity:
    """What a host (uuid) shows other hosts. `folder`: of its API's certificates; None: it has none."""

    def __init__(self, folder: Path | None, host: str) -> None:
        self._folder = folder
        self.host = host

    def shown(self) -> Pair:
        """As the files are now. Raises INTERNAL_ERROR."""
        if self._folder is None:
            raise internal_error("disks do not go between hosts: the storage service is told of no nbd_certificates")
        try:
            content = (self._folder / f"{self.host}{_SHOWN}").read_text()
            key, begin, rest = content.partition(_BEGIN)
            return Pair(begin + rest, key if "PRIVATE KEY" in key else (self._folder / "key.pem").read_text())
        except OSError as error:
            raise internal_error(f"disks do not go between hosts: {error}") from error


@contextmanager
def laid_out(folder: Path, endpoint: Endpoint, own: Pair, peer: str) -> Iterator[Path]:
    """A folder for QEMU's `tls-creds-x509`, nobody else's. `peer`: the only certificate that it takes."""
    place = folder / f"{secrets.token_hex(6)}{SUFFIX}"
    place.mkdir(mode=0o700)
    try:
        files = {"ca-cert": peer, f"{endpoint}-cert": own.certificate, f"{endpoint}-key": own.key}
        for name, pem in files.items():
            with os.fdopen(os.open(place / f"{name}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(pem)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def argument(place: Path, endpoint: Endpoint) -> str:
    """Of a QEMU program: what it shows and takes. It is not to ask whether the peer's is an authority's."""
    checked = "verify-peer=on,sanity-check=off"
    return f"{ARGUMENT}{escaped(place)},id={ID},endpoint={endpoint},{checked}"


ARGUMENT: Final = "--object=tls-creds-x509,dir="
"""Begins that argument."""


def escaped(value: object) -> str:
    """A value among QEMU's options."""
    return str(value).replace(",", ",,")
