"""`services.vm.disks.Disks` by QMP: guests that QEMU has stopped for want of room (`nodes.ON_ERROR`)."""

from __future__ import annotations

from services.vm.qemu.disks import nodes
from services.vm.qemu.disks.access import Access, look
from services.vm.qemu.guest import Guest


class Stalls(Access):
    async def stalled(self, vm: str) -> str:
        guest = self._guest(vm)
        return "" if guest is None else await stalled(guest)


async def stalled(guest: Guest) -> str:
    """Not of disks that are closed for the time being: those have room once they are resumed."""
    if (await guest.execute("query-status"))["status"] != "io-error":
        return ""
    full = (block["qdev"] for block in await guest.execute("query-block") if block.get("io-status") == "nospace")
    devices = {nodes.device_of_path(path) for path in full} - {""}
    return min(devices.difference((await look(guest)).closed()), default="")
