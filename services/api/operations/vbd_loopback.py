"""Disks of a control domain: opened on its host for programs that run there, without a hypervisor.

The datapath is not called a VM's: nobody can change the images under such a program.
"""

from __future__ import annotations

from typing import Final

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.on_hosts import on_host
from services.api.operations.vm_lifecycle import host_of
from shared.contracts import storage
from shared.contracts.db import Update
from shared.contracts.storage import Backend

DEV: Final = "/dev/"
LOOP: Final = "loop/"
"""Begins the names of datapaths."""


async def plug(call: Call, vbd: str) -> None:
    row = existing(call.store, "VBD", vbd)
    device = ""
    if not row["empty"]:
        vdi = existing(call.store, "VDI", row["VDI"])
        wanted = storage.DiskOpen(
            dp=datapath(row["uuid"]),
            sr=call.api.uuid_of("SR", vdi["SR"]),
            location=vdi["location"],
            writable=row["mode"] == "RW",
        )
        opened = await on_host(call, host_of(call, row["VM"]), storage.OPEN, storage.Open(disks=[wanted]))
        device = device_of(opened.backends[0])
    call.on_success.append(Update(cls="VBD", ref=vbd, fields={"currently_attached": True, "device": device}))


async def unplug(call: Call, vbd: str) -> None:
    row = existing(call.store, "VBD", vbd)
    request = storage.Close(dps=[datapath(row["uuid"])])
    await on_host(call, host_of(call, row["VM"]), storage.CLOSE, request)
    call.on_success.append(Update(cls="VBD", ref=vbd, fields={"currently_attached": False}))


def device_of(backend: Backend) -> str:
    """`VBD.device`: a name below /dev, else the whole path of an image, or the address of an NBD server."""
    return backend.path.removeprefix(DEV)


def datapath(vbd: str) -> str:
    """`vbd`: uuid."""
    return f"{LOOP}{vbd}"
