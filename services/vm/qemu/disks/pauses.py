"""`services.vm.disks.Disks` by QMP: closing images under a guest for a moment.

The CPUs are stopped, which also ends what is in flight; then the images are replaced by a placeholder and closed. The
guest asks nothing meanwhile, so it sees a delay. Should something let the CPUs run too early, the placeholder answers
"no space", upon which the devices (`nodes.ON_ERROR`) stop the guest again and keep the request for later.
"""

from __future__ import annotations

import errno
from typing import Any

from services.vm.disks import Slot
from services.vm.qemu.disks import nodes
from services.vm.qemu.disks.access import Access, look, not_attached, sweep
from services.vm.qemu.guest import Guest
from shared.contracts.storage import Backend as DiskBackend
from shared.errors import ApiError


class Pauses(Access):
    async def pause(self, slot: Slot) -> None:
        async with self._alone(slot) as guest:
            seen = await look(guest)
            top = seen.device_node(slot.device)
            if top is None:
                raise not_attached(slot)
            if seen.is_closed(slot.device) and not seen.images(slot.device):
                return
            running = await guest.running()
            await guest.execute("stop")
            try:
                await put_aside(guest, slot.device, top.size, writable=top.writable, answer=errno.ENOSPC)
            except BaseException:
                if running and not seen.closed():
                    await guest.execute("cont")
                raise

    async def resume(self, slot: Slot, backend: DiskBackend, *, running: bool) -> None:
        async with self._alone(slot) as guest:
            seen = await look(guest)
            if seen.device_node(slot.device) is None:
                raise not_attached(slot)
            if not seen.images(slot.device):
                await sweep(guest, slot.device)
                await put_back(guest, slot.device, backend)
            if running and not (await look(guest)).closed() and not guest.stopped:
                await guest.execute("cont")


async def put_aside(guest: Guest, device: str, size: int, *, writable: bool, answer: int) -> None:
    """Closes the images under a device. What the guest then asks is answered by that error number."""
    name = nodes.placeholder(device)
    await sweep(guest, device)
    await guest.execute(
        "blockdev-add",
        **{
            "driver": "blkdebug",
            "node-name": name,
            "read-only": not writable,
            "image": {"driver": "null-co", "size": size, "read-zeroes": True},
            "inject-error": [{"event": "none", "errno": answer, "once": False}],
        },
    )
    await _replace(guest, device, name, writable=writable)
    await sweep(guest, device)


async def put_back(guest: Guest, device: str, backend: DiskBackend) -> None:
    name = nodes.image_node(device)
    await guest.execute("blockdev-add", **nodes.image(backend, name, writable=backend.writable))
    await _replace(guest, device, name, writable=backend.writable)
    await sweep(guest, device)


async def _replace(guest: Guest, device: str, below: str, *, writable: bool) -> None:
    options: dict[str, Any] = nodes.filtered(device, below, writable=writable)
    try:
        await guest.execute("blockdev-reopen", options=[options])
    except ApiError:
        await sweep(guest, device)
        raise
