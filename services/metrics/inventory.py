"""Which VMs a host has, followed from the vm service's events and checked against its list now and then."""

from __future__ import annotations

import logging

from services.metrics.figures import present
from shared.bus.contract import Empty
from shared.bus.interface import Bus, BusError
from shared.contracts import vm
from shared.contracts.vm import HostCapabilities, VmState, VmStateChanged

log = logging.getLogger("metrics.inventory")


class Inventory:
    def __init__(self, bus: Bus, host: str) -> None:
        self._bus = bus
        self.host = host
        self.capabilities: HostCapabilities | None = None
        self._vms: dict[str, VmState] = {}
        """Also those that have just been halted, until the next list."""
        self._told = ""

    @property
    def vms(self) -> list[VmState]:
        return present(self._vms.values())

    async def follow(self) -> None:
        await self._bus.subscribe(vm.STATE, self._changed, host=self.host)

    async def refresh(self) -> None:
        """While the vm service is away, what is known stays."""
        before = dict(self._vms)
        try:
            if self.capabilities is None:
                self.capabilities = await self._bus.call(vm.CAPABILITIES, Empty(), host=self.host)
            listed = await self._bus.call(vm.LIST, Empty(), host=self.host)
        except BusError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning("the VMs of host %s are not known: %s", self.host, error)
            return
        self._told = ""
        fresh = {state.uuid: state for state in listed.vms}
        for uuid, state in self._vms.items():
            # an event that came while the list was on its way is newer
            newer = state is not before.get(uuid) and (uuid not in fresh or state.seq > fresh[uuid].seq)
            if newer:
                fresh[uuid] = state
        self._vms = fresh

    def _changed(self, event: VmStateChanged, _: str) -> None:
        state = event.state
        known = self._vms.get(state.uuid)
        if known is None or state.seq >= known.seq or state.start_time > known.start_time:
            self._vms[state.uuid] = state
