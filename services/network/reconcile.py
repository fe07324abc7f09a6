"""After a restart: taps of VMs that are gone.

The service may have been down while a VM ended, so what was there at its start is compared with the VMs of the host.
A VM that is just starting has its taps before it is listed; so a tap only goes when its VM was missing twice, some time
apart, when no process has it open, and when nobody plugged it since.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from functools import partial

from services.network.devices import Devices, Tap
from services.network.links import LinkError, Links
from shared.bus.contract import Empty
from shared.bus.interface import Bus
from shared.contracts import vm
from shared.service import wait_for

log = logging.getLogger("network.reconcile")


def stale(
    taps: Iterable[Tap], at_start: Collection[str], plugged: Collection[str], alive: Collection[str]
) -> list[Tap]:
    """`at_start`: names of the taps found then; `plugged`: VMs that were plugged since; `alive`: VMs there are now."""
    return [
        tap for tap in taps if tap.name in at_start and tap.vm not in plugged and tap.vm not in alive and not tap.open
    ]


class Reconciler:
    """`plugged`: VMs (uuid) for which taps were asked for since the start; whoever plugs adds to it."""

    def __init__(
        self, bus: Bus, links: Links, devices: Devices, hosts: list[str], interval: float, plugged: set[str]
    ) -> None:
        self._plugged = plugged
        self._bus = bus
        self._links = links
        self._devices = devices
        self._hosts = hosts
        self._interval = interval

    async def run(self) -> None:
        """Once; ends when nothing stale is left to find."""
        at_start = {tap.name for tap in await self._links.run(self._devices.taps)}
        if not at_start:
            return
        alive = await self._alive()
        if not stale(await self._links.run(self._devices.taps), at_start, self._plugged, alive):
            return
        await asyncio.sleep(self._interval)
        alive |= await self._alive()
        for tap in await self._links.run(lambda: self._remove(at_start, alive)):
            log.warning("removed the tap %s: VM %s is gone", tap.name, tap.vm)

    def _remove(self, at_start: Collection[str], alive: Collection[str]) -> list[Tap]:
        """In the netlink thread, where plugging happens too: nothing comes between the look and the removal."""
        gone = stale(self._devices.taps(), at_start, self._plugged, alive)
        for tap in gone:
            try:
                self._devices.remove_tap(tap)
            except LinkError as error:
                log.error("the tap %s stays: %s", tap.name, error)
        return gone

    async def _alive(self) -> set[str]:
        """VMs of all hosts of this process: they share the prefix."""
        found: set[str] = set()
        for host in self._hosts:
            listed = await wait_for(f"the VMs of host {host}", partial(self._bus.call, vm.LIST, Empty(), host=host))
            found |= {state.uuid for state in listed.vms}
        return found
