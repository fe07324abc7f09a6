"""NBD fronts of the hosts of a storage service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.storage.host import HostStorage
from services.storage.nbd.front.exports import Exports
from services.storage.nbd.front.front import NbdFront
from services.storage.nbd.server import Programs
from services.storage.options import StorageOptions
from shared.service import Service


def serve_nbd(
    service: Service, options: StorageOptions, hosts: Sequence[HostStorage], sockets: Path, programs: Programs
) -> list[NbdFront]:
    """They follow what the API says until they are closed."""
    if not options.nbd_certificates:
        return []
    folder = Path(options.nbd_certificates)
    fronts = [
        NbdFront(
            host=host.host,
            bus=service.bus,
            exports=Exports(host, sockets, programs),
            port=options.nbd_port,
            certificate=(folder / f"{host.host}.pem", folder / "key.pem"),
            haggle_within=options.nbd_haggle,
        )
        for host in hosts
    ]
    for front in fronts:
        front.begin(service.spawn)
    return fronts
