"""The network service: the methods of `shared.contracts.network`, for each host of the process.

When it stops, everything stays as it is: VMs go on.
"""

from __future__ import annotations

import logging
import os

from prometheus_client import Counter

from services.network.configuration import ConfigurationFile
from services.network.devices import Devices, usable
from services.network.hosts import BridgedNetwork, HostNetwork, SimulatedNetwork, UserNetwork
from services.network.links import Links
from services.network.options import Mode, NetworkOptions
from services.network.reconcile import Reconciler
from shared.bus.contract import Empty
from shared.config import HostConfig
from shared.contracts import network as contract
from shared.service import Service

log = logging.getLogger("network")


class Handlers:
    """One host's methods. `plugged`: told which VMs get taps."""

    def __init__(self, network: HostNetwork, plugged: set[str], counter: Counter) -> None:
        self._network = network
        self._plugged = plugged
        self._counter = counter

    async def scan(self, _: Empty) -> contract.Interfaces:
        return contract.Interfaces(interfaces=await self._network.scan())

    async def bridge_up(self, request: contract.Bridge) -> Empty:
        await self._network.bridge_up(request.bridge, request.mtu)
        return Empty()

    async def bridge_down(self, request: contract.Bridge) -> Empty:
        await self._network.bridge_down(request.bridge)
        return Empty()

    async def vifs_plug(self, request: contract.VifsPlug) -> contract.VifBackends:
        self._plugged.update(vif.vm for vif in request.vifs)
        backends = await self._network.plug(request.vifs)
        for backend in backends:
            self._counter.labels(backend.kind).inc()
        return contract.VifBackends(vifs=backends)

    async def vifs_unplug(self, request: contract.VifsUnplug) -> Empty:
        await self._network.unplug(request.vm, request.devices)
        return Empty()


async def setup(service: Service) -> None:
    await serve(service, Links())


async def serve(service: Service, links: Links) -> None:
    """`links`: the kernel's devices, or those of a namespace."""
    options = service.options(NetworkOptions)
    real = [host for host in service.hosts if not host.simulated]
    mode, refusal = await _mode(links, options) if real else (Mode.USER, "")
    service.details["mode"] = f"{mode}{f': {refusal}' if refusal else ''}"
    counter = Counter("network_vifs_plugged", "VIFs plugged, by kind", ["kind"], registry=service.registry)
    plugged: set[str] = set()
    for host in service.hosts:
        network = _network(service, host, links, options, mode, refusal)
        await network.start()
        handlers = Handlers(network, plugged, counter)
        await service.serve(contract.SCAN, handlers.scan, host=host.uuid)
        await service.serve(contract.BRIDGE_UP, handlers.bridge_up, host=host.uuid)
        await service.serve(contract.BRIDGE_DOWN, handlers.bridge_down, host=host.uuid)
        await service.serve(contract.VIFS_PLUG, handlers.vifs_plug, host=host.uuid)
        await service.serve(contract.VIFS_UNPLUG, handlers.vifs_unplug, host=host.uuid)
    if real and mode is Mode.BRIDGE and not refusal:
        devices = Devices(links, options.prefix, real[0].uuid)
        uuids = [host.uuid for host in real]
        reconciler = Reconciler(service.bus, links, devices, uuids, options.reconcile_after, plugged)
        service.spawn(reconciler.run(), "taps of VMs that are gone")


async def _mode(links: Links, options: NetworkOptions) -> tuple[Mode, str]:
    """BRIDGE or USER, and why bridges cannot be made, if so."""
    if options.mode is Mode.USER:
        return Mode.USER, ""
    refusal = await links.run(lambda: usable(links, options.prefix, str(os.getpid())))
    if refusal and options.mode is Mode.AUTO:
        log.warning("guests get user-mode networking: %s", refusal)
        return Mode.USER, ""
    return Mode.BRIDGE, refusal


def _network(
    service: Service, host: HostConfig, links: Links, options: NetworkOptions, mode: Mode, refusal: str
) -> HostNetwork:
    if host.simulated:
        return SimulatedNetwork(host.uuid, host.address)
    if mode is Mode.USER:
        return UserNetwork(links, options.interfaces)
    file = ConfigurationFile(service.state_dir / f"{host.uuid}.json")
    devices = Devices(links, options.prefix, host.uuid)
    return BridgedNetwork(host.uuid, links, devices, file, options.interfaces, refusal)
