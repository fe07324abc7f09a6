"""`services.vm.disks.Disks` by QMP: devices that come and go while the guest runs, and media of drives.

A guest has to let go of a device. As long as it does not, QEMU keeps the device; one that was taken by force is left
without a disk, answers every request with an I/O error, and goes when the guest lets go after all or reboots.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from typing import Any

from services.vm.backend import Disk
from services.vm.disks import Slot
from services.vm.qemu.disks import jobs, nodes
from services.vm.qemu.disks.access import Access, look, sweep
from services.vm.qemu.disks.pauses import forget_opened, put_aside
from services.vm.qemu.guest import Guest, NoAnswer
from shared.errors import ApiError

log = logging.getLogger("vm.qemu")

PERIPHERAL = "/machine/peripheral"
LOOK_EVERY = 1.0
"""Seconds; events are acted upon at once."""
ASK_EVERY = 2.0
"""Seconds: a guest that boots does not hear what it is asked."""
NODE_FREE_TIMEOUT = 5.0
"""Seconds in which QEMU lets go of the node of a device that is gone."""


class Hotplug(Access):
    """`unplug_timeout` (s): how long a guest may take to let go of a device."""

    def __init__(self, guest: Callable[[str], Guest | None], unplug_timeout: float) -> None:
        super().__init__(guest)
        self._unplug_timeout = unplug_timeout

    async def plugged(self, vm: str) -> set[str]:
        guest = self._guest(vm)
        if guest is None:
            raise ApiError("INTERNAL_ERROR", f"VM {vm} has no domain here")
        seen = await look(guest)
        devices = {name.removeprefix("vbd-") for name in await _peripherals(guest) if name.startswith("vbd-")}
        return {device for device in devices if not seen.is_dead(device)}

    async def plug(self, slot: Slot, disk: Disk) -> None:
        async with self._alone(slot) as guest:
            if nodes.device_id(slot.device) in await _peripherals(guest):
                if await _is_drive(guest, slot.device):
                    await self._insert(guest, slot.device, disk)
                    return
                seen = await look(guest)
                if not seen.is_dead(slot.device):
                    return
                if not await self._gone(guest, slot):
                    raise ApiError("DEVICE_ATTACH_TIMEOUT", "VBD", slot.vbd)
            await _drop_nodes(guest, slot.device)
            if disk.backend is None:
                return
            try:
                await _add_nodes(guest, disk)
                bus = await _free_bus(guest)
                await guest.execute("device_add", **nodes.disk_device(slot.device), **bus)
            except NoAnswer as error:
                log.warning("VBD %s: %s", slot.vbd, error)
                raise ApiError("DEVICE_ATTACH_TIMEOUT", "VBD", slot.vbd) from error
            except ApiError:
                await _drop_nodes(guest, slot.device)
                raise

    async def unplug(self, slot: Slot, *, force: bool) -> None:
        guest = self._guest(slot.vm)
        if guest is None:
            return
        if force:
            for job in await jobs.of_device(guest, slot.device):
                await jobs.cancel(guest, job.name)
        async with self._alone(slot):
            if nodes.device_id(slot.device) not in await _peripherals(guest):
                await _drop_nodes(guest, slot.device)
            elif await _is_drive(guest, slot.device):
                await self._eject(guest, slot.device)
            elif force:
                await _ask_to_let_go(guest, slot.device)
                await self._take_away(guest, slot.device)
            elif await self._gone(guest, slot):
                await _drop_nodes(guest, slot.device)
            else:
                raise ApiError("DEVICE_DETACH_TIMEOUT", "VBD", slot.vbd)

    async def _gone(self, guest: Guest, slot: Slot) -> bool:
        """Asks the guest to let go of a device, time and again, until it has. Raises DEVICE_DETACH_REJECTED."""
        name = nodes.device_id(slot.device)
        guest.unplug_refused.discard(name)
        deadline = time.monotonic() + self._unplug_timeout
        ask_at = 0.0
        while True:
            if time.monotonic() >= ask_at:
                await _ask_to_let_go(guest, slot.device)
                ask_at = time.monotonic() + ASK_EVERY
            moment = guest.moment()
            if name not in await _peripherals(guest):
                return True
            if name in guest.unplug_refused:
                raise ApiError("DEVICE_DETACH_REJECTED", "VBD", slot.vbd, "the guest refuses to let go of it")
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await guest.next_event(moment, min(left, LOOK_EVERY))

    async def _take_away(self, guest: Guest, device: str) -> None:
        """The device stays, without its disk."""
        seen = await look(guest)
        if seen.device_node(device) is not None and not seen.is_dead(device):
            await put_aside(guest, device, nodes.DEAD, errno.EIO)
        await forget_opened(guest, device)

    # ---- media

    async def ejected(self, slot: Slot) -> bool:
        guest = self._guest(slot.vm)
        blocks = [] if guest is None else await guest.execute("query-block")
        name = nodes.device_id(slot.device)
        return any(block.get("qdev") == name and block.get("tray_open") and "inserted" in block for block in blocks)

    async def _insert(self, guest: Guest, device: str, disk: Disk) -> None:
        if disk.backend is None or (await look(guest)).images(device):
            return
        name = nodes.device_id(device)
        await _drop_nodes(guest, device)
        await _add_nodes(guest, disk)
        try:
            await guest.execute("blockdev-open-tray", id=name, force=True)
            await guest.execute("blockdev-insert-medium", **{"id": name, "node-name": nodes.node(device)})
        except ApiError:
            await _drop_nodes(guest, device)
            raise
        await guest.execute("blockdev-close-tray", id=name)

    async def _eject(self, guest: Guest, device: str) -> None:
        """By force, as the button of the drive: a guest that has locked its tray is told."""
        name = nodes.device_id(device)
        if (await look(guest)).device_node(device) is not None:
            await guest.execute("blockdev-open-tray", id=name, force=True)
            await guest.execute("blockdev-remove-medium", id=name)
            await guest.execute("blockdev-close-tray", id=name)
        await _drop_nodes(guest, device)


async def _peripherals(guest: Guest) -> set[str]:
    listed = await guest.execute("qom-list", path=PERIPHERAL)
    return {item["name"] for item in listed if item["type"].startswith("child<")}


async def _is_drive(guest: Guest, device: str) -> bool:
    kind = await guest.execute("qom-get", path=f"{PERIPHERAL}/{nodes.device_id(device)}", property="type")
    return bool(kind == "ide-cd")


async def _ask_to_let_go(guest: Guest, device: str) -> None:
    try:
        await guest.execute("device_del", id=nodes.device_id(device))
    except ApiError as error:
        # it has been asked before, or has let go this moment: in both cases what follows is seen by looking
        log.info("VBD %s of VM %s: %s", device, guest.domain.vm.uuid, error)


async def _add_nodes(guest: Guest, disk: Disk) -> None:
    if disk.backend is None:
        raise ApiError("INTERNAL_ERROR", f"VBD {disk.spec.uuid} has no disk")
    device, writable = disk.spec.device, nodes.is_writable(disk)
    image = nodes.image(disk.backend, nodes.image_node(device), writable=writable)
    await guest.execute("object-add", **nodes.group(device))
    await guest.execute("blockdev-add", **nodes.filtered(device, image, writable=writable))


async def _drop_nodes(guest: Guest, device: str) -> None:
    """Closes everything of a device that has no disk, or is no more."""
    deadline = time.monotonic() + NODE_FREE_TIMEOUT
    while (await look(guest)).device_node(device) is not None:
        try:
            await guest.execute("blockdev-del", **{"node-name": nodes.node(device)})
        except ApiError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)  # a device is told to be gone a moment before it is
    await sweep(guest, device)
    await forget_opened(guest, device)
    group = nodes.throttle_group(device)
    if group in {item["name"] for item in await guest.execute("qom-list", path="/objects")}:
        await guest.execute("object-del", id=group)


async def _free_bus(guest: Guest) -> dict[str, Any]:
    """Where a device can be added. Raises OPERATION_NOT_ALLOWED when all slots are taken."""
    names = await _peripherals(guest)
    ports = sorted(name for name in names if name.startswith(nodes.PORT))
    if not ports:
        return {}  # a machine whose main bus takes devices
    taken = set()
    for name in names - set(ports):
        where = await guest.execute("qom-get", path=f"{PERIPHERAL}/{name}", property="parent_bus")
        taken.add(str(where).rpartition("/")[2])
    free = [port for port in ports if port not in taken]
    if not free:
        raise ApiError("OPERATION_NOT_ALLOWED", f"all {len(ports)} slots for devices of a running VM are taken")
    return {"bus": free[0]}
