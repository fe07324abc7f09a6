"""Disks that forget what a VM did to them (`on_boot` reset): their SR hears of the beginning and end of each run.

They are taken back when a VM starts and when a call reboots it; not when it is resumed, nor when its guest reboots by
itself, as QEMU keeps its disks open then.
"""

from __future__ import annotations

import logging

from services.api.call import Call
from services.api.decisions.rows import Rows, existing
from services.api.storage_hosts import ask, disk
from shared.contracts import storage as contract
from shared.errors import ApiError

log = logging.getLogger("api.vm")


def forgetful(rows: Rows, vm: str) -> list[str]:
    """The VM's disks that are reset."""
    drives = [existing(rows, "VBD", vbd) for vbd in existing(rows, "VM", vm)["VBDs"]]
    disks = ((vbd["VDI"], rows.row("VDI", vbd["VDI"])) for vbd in drives if not vbd["empty"])
    return [ref for ref, row in disks if row is not None and row["on_boot"] == "reset"]


async def begin(call: Call, vm: str, host: str) -> None:
    """Before the VM's disks are opened on the host (reference). Raises what the SR's plug-in says."""
    for vdi in forgetful(call.store, vm):
        await _tell(call, vm, vdi, host, begin=True)


async def end(call: Call, vm: str, host: str) -> None:
    """After they have been closed; what goes wrong is made up for by the next beginning."""
    for vdi in forgetful(call.store, vm):
        try:
            await _tell(call, vm, vdi, host, begin=False)
        except ApiError as error:
            log.warning("SR of disk %s does not know that VM %s has ended: %s", vdi, vm, error)


async def _tell(call: Call, vm: str, vdi: str, host: str, *, begin: bool) -> None:
    place, uuid = disk(call.api, vdi), call.api.uuid_of("VM", vm)
    epoch = contract.Epoch(sr=place.sr, location=place.location, vm=uuid, begin=begin, persistent=False)
    await ask(call.api, host, contract.VDI_EPOCH, epoch)
