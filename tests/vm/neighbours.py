"""The services a host's vm service calls, as small fakes on the memory bus, and a vm service process among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.vm.service import setup
from shared.bus.contract import Empty
from shared.bus.endpoint import Endpoint
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import network, storage
from shared.contracts import vm as contract
from shared.contracts.vm import Cause, PowerState, VmStateChanged
from shared.errors import ApiError
from shared.service import Service

HOST = "11111111-0000-4000-8000-000000000001"


class Neighbours:
    """Storage and network of one host. What they hold is there to be looked at; `refuse` makes a method fail.

    `disks`: folder of qcow2 images by location; what is not there is a disk without content. `vif_kind`: of all VIFs.
    """

    def __init__(self, disks: Path | None = None, vif_kind: str = "none") -> None:
        self._disks = disks
        self._vif_kind = vif_kind
        self._changed = asyncio.Condition()
        self.open: dict[str, storage.DiskOpen] = {}
        self.opened = asyncio.Event()
        self.plugged: dict[tuple[str, str], network.VifPlug] = {}
        self.refuse: dict[str, ApiError] = {}
        self.calls: list[str] = []
        self.hold: dict[str, asyncio.Event] = {}
        self.held: dict[str, asyncio.Event] = {}

    def hold_back(self, method: str) -> asyncio.Event:
        """The method waits until the answer is set."""
        self.held[method] = asyncio.Event()
        self.hold[method] = asyncio.Event()
        return self.hold[method]

    async def serve(self, bus: Endpoint, host: str) -> None:
        await bus.serve(storage.OPEN, self._open, host=host)
        await bus.serve(storage.CLOSE, self._close, host=host)
        await bus.serve(storage.HAND_OVER, self._hand_over, host=host)
        await bus.serve(network.VIFS_PLUG, self._plug, host=host)
        await bus.serve(network.VIFS_UNPLUG, self._unplug, host=host)
        for service in ("storage", "network"):
            await bus.start_consuming(service, host=host)

    async def _enter(self, method: str) -> None:
        self.calls.append(method)
        if method in self.hold:
            self.held[method].set()
            await self.hold[method].wait()
        if method in self.refuse:
            raise self.refuse[method]

    async def _open(self, request: storage.Open) -> storage.Opened:
        await self._enter("open")
        self.open |= {disk.dp: disk for disk in request.disks}
        self.opened.set()
        return storage.Opened(backends=[self._backend(disk) for disk in request.disks])

    def _backend(self, disk: storage.DiskOpen) -> storage.Backend:
        image = self._disks / f"{disk.location}.qcow2" if self._disks is not None else None
        form, path = ("none", "/nowhere") if image is None else ("qcow2", str(image))
        return storage.Backend(dp=disk.dp, kind="file", path=path, format=form, writable=disk.writable)

    async def _close(self, request: storage.Close) -> Empty:
        await self._enter("close")
        async with self._changed:
            for dp in request.dps:
                self.open.pop(dp, None)
            self._changed.notify_all()
        return Empty()

    async def _hand_over(self, request: storage.HandOver) -> Empty:
        await self._enter("hand over")
        if request.other in self.open:
            self.open[request.dp] = self.open.pop(request.other)
        return Empty()

    async def all_closed(self) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: not self.open)

    async def _plug(self, request: network.VifsPlug) -> network.VifBackends:
        await self._enter("plug")
        self.plugged |= {(vif.vm, vif.device): vif for vif in request.vifs}
        return network.VifBackends(
            vifs=[network.VifBackend(vm=vif.vm, device=vif.device, kind=self._vif_kind) for vif in request.vifs]
        )

    async def _unplug(self, request: network.VifsUnplug) -> Empty:
        await self._enter("unplug")
        self.plugged = {key: vif for key, vif in self.plugged.items() if key[0] != request.vm}
        return Empty()


class Pool:
    """A memory bus with neighbours for each host, a client, and vm services that may come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = MemoryBroker()
        self.neighbours: dict[str, Neighbours] = {}
        self.events: list[VmStateChanged] = []
        self._changed = asyncio.Condition()
        self.services: list[Service] = []
        self._endpoints: list[Endpoint] = []
        self.bus: Endpoint

    async def open(self) -> None:
        self.bus = await self.broker.connect("client")
        self._endpoints.append(self.bus)
        await self.bus.subscribe(contract.STATE, self._heard)

    async def connected(self, name: str) -> Endpoint:
        """Closed with the pool."""
        endpoint = await self.broker.connect(name)
        self._endpoints.append(endpoint)
        return endpoint

    async def _heard(self, event: VmStateChanged, _: str) -> None:
        async with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    async def heard(self, wanted: Callable[[VmStateChanged], bool], timeout: float = 30.0) -> VmStateChanged:
        """The first event like that, now or later."""
        async with asyncio.timeout(timeout), self._changed:
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                await self._changed.wait()

    async def state(self, vm: str, power_state: PowerState, cause: Cause | None = None) -> VmStateChanged:
        return await self.heard(
            lambda event: (
                event.state.uuid == vm
                and event.state.power_state is power_state
                and (cause is None or event.cause is cause)
            )
        )

    async def start_service(self, hosts: list[str] | None = None, **options: Any) -> Service:
        hosts = hosts or [HOST]
        for host in hosts:
            if host not in self.neighbours:
                self.neighbours[host] = Neighbours()
                await self.neighbours[host].serve(await self.connected(f"neighbours of {host}"), host)
        config = Config(
            service="vm",
            state_dir=str(self.folder / "state"),
            bus=BusConfig(url="memory"),
            hosts=[HostConfig(uuid=host, name=f"host{n}", address="127.0.0.1") for n, host in enumerate(hosts)],
            options={"backend": "simulator", "run_dir": str(self.folder / "run"), **options},
        )
        service = Service(config, await self.broker.connect("vm"))
        await setup(service)
        await service.open_queues()
        self.services.append(service)
        return service

    async def close_service(self, service: Service) -> None:
        self.services.remove(service)
        await service.close()

    async def close(self) -> None:
        for service in list(self.services):
            await self.close_service(service)
        for endpoint in self._endpoints:
            await endpoint.close()
