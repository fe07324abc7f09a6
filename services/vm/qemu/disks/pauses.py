"""`services.vm.disks.Disks` by QMP: closing images under a guest for a moment.

The CPUs are stopped, which also ends what is in flight; then the images are replaced by a placeholder and closed. The
guest asks nothing meanwhile, so it sees a delay. Should something let the CPUs run too early, the placeholder answers
"no space", upon which the devices (`nodes.ON_ERROR`) stop the guest again and keep the request for later.
"""

from __future__ import annotations

import errno
from typing import Any

import msgspec

from services.vm.disks import Slot
from services.vm.qemu.disks import nodes
from services.vm.qemu.disks.access import Access, backend_of, look, not_attached, sweep
from services.vm.qemu.guest import Guest
from shared.contracts.storage import Backend as DiskBackend
from shared.errors import ApiError


class Pauses(Access):
    async def pause(self, slot: Slot) -> None:
        async with self._alone(slot) as guest:
            seen = await look(guest)
            if slot.device in seen.closed():
                return
            images = seen.images(slot.device)
            if not images:
                raise not_attached(slot)
            await forget_opened(guest, slot.device)
            what = msgspec.json.encode(backend_of(slot, images[0])).decode()
            await guest.execute("object-add", **{"qom-type": "secret", "id": nodes.opened(slot.device), "data": what})
            running = await guest.running()
            await guest.execute("stop")
            try:
                await put_aside(guest, slot.device, nodes.CLOSED, errno.ENOSPC)
            except BaseException:
                if running and not (await look(guest)).closed():
                    await guest.execute("cont")
                raise

    async def resume(self, slot: Slot, backend: DiskBackend | None, *, running: bool) -> None:
        async with self._alone(slot) as guest:
            seen = await look(guest)
            if slot.device in seen.closed():
                await self._put_back(guest, slot, backend)
            elif not seen.images(slot.device):
                raise not_attached(slot)
            await forget_opened(guest, slot.device)
            if running and not (await look(guest)).closed() and guest.stopped is None:
                await guest.execute("cont")

    async def _put_back(self, guest: Guest, slot: Slot, backend: DiskBackend | None) -> None:
        if backend is None:
            where = {"path": f"/objects/{nodes.opened(slot.device)}", "property": "data"}
            backend = msgspec.json.decode(await guest.execute("qom-get", **where), type=DiskBackend)
        writable = backend.writable
        name = nodes.image_node(slot.device)
        await sweep(guest, slot.device)
        await guest.execute("blockdev-add", **nodes.image(backend, name, writable=writable))
        await _replace(guest, slot.device, name, writable=writable)


async def forget_opened(guest: Guest, device: str) -> None:
    name = nodes.opened(device)
    if name in {item["name"] for item in await guest.execute("qom-list", path="/objects")}:
        await guest.execute("object-del", id=name)


async def put_aside(guest: Guest, device: str, kind: str, answer: int) -> None:
    """Closes the images under a device. `kind`: CLOSED or DEAD. `answer`: error number for what the guest then asks."""
    await sweep(guest, device)
    top = (await look(guest)).device_node(device)
    if top is None:
        raise ApiError("INTERNAL_ERROR", f"there is no node {nodes.node(device)}")
    await guest.execute(
        "blockdev-add",
        **{
            "driver": "blkdebug",
            "node-name": kind + device,
            "read-only": not top.writable,
            "image": {"driver": "null-co", "size": top.size, "read-zeroes": True},
            "inject-error": [{"event": "none", "errno": answer, "once": False}],
        },
    )
    await _replace(guest, device, kind + device, writable=top.writable)


async def _replace(guest: Guest, device: str, below: str, *, writable: bool) -> None:
    """Closes what was below."""
    options: dict[str, Any] = nodes.filtered(device, below, writable=writable)
    try:
        await guest.execute("blockdev-reopen", options=[options])
    finally:
        await sweep(guest, device)
