"""The storage service: the methods of `shared.contracts.storage`, for each host of the process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.storage.boot import boot_identity
from services.storage.elsewhere import following
from services.storage.host import HostStorage
from services.storage.journal import Journal
from services.storage.live import LiveOnBus
from services.storage.merges import Merges
from services.storage.motion.setup import Motion, place
from services.storage.nbd.front.setup import serve_nbd
from services.storage.nbd.server import Programs
from services.storage.options import StorageOptions
from services.storage.plugins import lifetime
from services.storage.plugins.bundled import bundled
from services.storage.plugins.interface import Plugin
from services.storage.registry import Registry
from services.storage.secret_settings import on_bus
from services.storage.smapiv1.setup import drivers
from services.storage.smapiv3.discovery import discovery
from services.storage.sockets import socket_folder
from services.storage.transfer.reserve import Reserve
from services.storage.transfer.transfers import Transfers
from shared.bus import context
from shared.bus.contract import Empty, Method, Reply, Request
from shared.bus.interface import Bus, BusError
from shared.contracts import storage as contract
from shared.contracts import transfer
from shared.contracts.task import PROGRESS, Progress
from shared.errors import ApiError
from shared.service import Service

log = logging.getLogger("storage.service")

PROGRESS_INTERVAL = 0.5
"""Seconds between two reports of one copy."""


START_WITHIN = 10.0
"""Seconds after which the service starts, with SRs that are still being attached."""

STOP_AFTER = 5.0
"""Seconds that running calls get to end when the service stops; then they are cancelled and undo their work."""


class Calls:
    """The calls that are running, and what is counted about calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "storage_calls",
            "Calls by method and outcome (ok or an error code)",
            ["method", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram("storage_call_seconds", "Duration of calls", ["method"], registry=registry)
        self.datapaths = Gauge("storage_datapaths", "Datapaths by host and state", ["host", "state"], registry=registry)
        self._running: set[asyncio.Task[Any]] = set()
        self.srs = Gauge("storage_srs_attached", "SRs attached, by host", ["host"], registry=registry)

    def follow(self, host: HostStorage) -> None:
        """The gauges are read from the tables when somebody asks for them."""
        for state in ("attached", "activated"):
            self.datapaths.labels(host.host, state).set_function(partial(_count, host, state))
        self.srs.labels(host.host).set_function(lambda: len(host.repositories.attached()))

    def measured(
        self, method: Method[Request, Reply], handler: Callable[[Request], Awaitable[Reply]]
    ) -> Callable[[Request], Awaitable[Reply]]:
        seconds = self.seconds.labels(method.name)

        async def call(request: Request) -> Reply:
            begin, outcome = time.perf_counter(), "INTERNAL_ERROR"
            task = asyncio.current_task()
            assert task is not None
            self._running.add(task)
            try:
                reply = await handler(request)
                outcome = "ok"
                return reply
            except ApiError as error:
                outcome = error.code
                raise
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            finally:
                self._running.discard(task)
                seconds.observe(time.perf_counter() - begin)
                self.calls.labels(method.name, outcome).inc()

        return call

    async def end(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_AFTER)
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


def _count(host: HostStorage, state: str) -> float:
    return sum(held.state == state for held in host.datapaths.held())


Handler = Callable[[Any], Awaitable[Any]]


class Handlers:
    """One host's methods. `complete`: waits until all plug-ins that there are have been found."""

    def __init__(
        self,
        host: HostStorage,
        plugins: Mapping[str, Plugin],
        bus: Bus,
        transfers: Transfers,
        complete: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._host, self._plugins, self._bus, self._transfers = host, plugins, bus, transfers
        self._complete = complete

    def table(self) -> list[tuple[Method[Any, Any], Handler]]:
        host, disks = self._host, self._host.disks
        methods: list[tuple[Method[Any, Any], Handler]] = [
            (contract.DRIVERS, self._drivers),
            (contract.SR_PROBE, host.probe),
            (contract.SR_CREATE, host.create_sr),
            (contract.SR_ATTACH, host.attach_sr),
            (contract.SR_DETACH, _quiet(lambda request: host.detach_sr(request.sr))),
            (contract.SR_DESTROY, _quiet(lambda request: host.destroy_sr(request.sr))),
            (contract.SR_SCAN, lambda request: disks.scan(request.sr)),
            (contract.SR_STAT, lambda request: host.stat(request.sr)),
            (contract.SR_SET_NAME, _quiet(host.set_name)),
            (contract.VDI_CREATE, disks.create),
            (contract.VDI_DESTROY, _quiet(disks.destroy)),
            (contract.VDI_CLONE, disks.clone),
            (contract.VDI_COPY, self._vdi_copy),
            (contract.VDI_RESIZE, disks.resize),
            (contract.VDI_STAT, disks.stat),
            (contract.VDI_INTRODUCE, disks.introduce),
            (contract.VDI_DESCRIBE, _quiet(disks.describe)),
            (contract.VDI_REVERT, disks.revert),
            (contract.VDI_COMPOSE, _quiet(disks.compose)),
            (contract.VDI_SIMILAR_CONTENT, disks.similar_content),
            (contract.VDI_ENABLE_CBT, _quiet(disks.enable_cbt)),
            (contract.VDI_DISABLE_CBT, _quiet(disks.disable_cbt)),
            (contract.VDI_DATA_DESTROY, _quiet(disks.data_destroy)),
            (contract.VDI_CHANGED_BLOCKS, disks.changed_blocks),
            (contract.VDI_GENERATE_CONFIG, disks.generate_config),
            (contract.VDI_SET_PERSISTENT, _quiet(disks.set_persistent)),
            (contract.VDI_EPOCH, _quiet(disks.epoch)),
            (contract.OPEN, self._open),
            (contract.CLOSE, _quiet(lambda request: host.datapaths.close(request.dps))),
            (contract.HAND_OVER, _quiet(host.datapaths.hand_over)),
            (contract.DATAPATHS, self._datapaths),
            (contract.FENCE, self._fence),
            (transfer.EXPORT, self._transfers.export),
            (transfer.IMPORT, self._transfers.import_),
            (transfer.TRANSFER_END, self._transfer_end),
            (transfer.TRANSFER_CANCEL, _quiet(lambda request: self._transfers.cancel(request.transfer))),
            (transfer.TRANSFERS_ABANDON, _quiet(lambda request: self._transfers.abandon(request.process))),
            (transfer.COPY, self._copy),
            (transfer.CHECKSUM, self._checksum),
        ]
        return [(method, following(self._bus, host.host, method, work)) for method, work in methods]

    async def _drivers(self, _: Empty) -> contract.Drivers:
        """Not before all are known: types that are left out would be taken for gone."""
        if self._complete is not None:
            await self._complete()
        return contract.Drivers(drivers=[plugin.query() for plugin in self._plugins.values()])

    async def _vdi_copy(self, request: contract.VdiClone) -> contract.VdiInfo:
        return await self._host.disks.copy(request, self._reporter())

    async def _checksum(self, request: transfer.Checksum) -> transfer.Moved:
        return await self._transfers.checksum(request, self._reporter())

    async def _transfer_end(self, request: transfer.TransferId) -> transfer.Moved:
        return await self._transfers.end(request.transfer, self._reporter())

    async def _copy(self, request: transfer.Copy) -> transfer.Moved:
        return await self._transfers.copy(request, self._reporter())

    async def _open(self, request: contract.Open) -> contract.Opened:
        return contract.Opened(backends=await self._host.datapaths.open(request.disks))

    async def _datapaths(self, _: Empty) -> contract.Datapaths:
        return contract.Datapaths(datapaths=self._host.datapaths.held())

    async def _fence(self, request: contract.Fence) -> contract.Fenced:
        return contract.Fenced(leases=await self._host.fence(request.host))

    def _reporter(self) -> Callable[[float], Awaitable[None]]:
        """Tells the task of the current call how far it is, now and then."""
        task = context.current.get().task
        last = 0.0

        async def report(progress: float) -> None:
            nonlocal last
            now = time.monotonic()
            if task and now - last >= PROGRESS_INTERVAL:
                last = now
                try:
                    await self._bus.publish(PROGRESS, Progress(task=task, progress=progress), task=task)
                except BusError:
                    last = 0.0  # a copy does not fail for want of an audience

        return report


def _quiet(work: Handler) -> Handler:
    """For methods whose answer is that it is done."""

    async def handler(request: Any) -> Empty:
        await work(request)
        return Empty()

    return handler


async def setup(service: Service) -> None:
    options = service.options(StorageOptions)
    await lifetime.begin(service.state_dir / "programs")
    journal = Journal(service.state_dir / "journal")
    merges = Merges(service.registry, service.bus)
    service.spawn(merges.run(), "tell of merged images")
    brought = bundled(options, service.state_dir, LiveOnBus(service.bus), merges)
    plugins = Registry(brought, lambda: _announce(service), options.left_types)
    calls = Calls(service.registry)
    boot = boot_identity()
    smapiv1 = drivers(service, options, plugins)
    smapiv3 = discovery(Path(options.smapiv3_root), service.state_dir / "smapiv3", plugins)

    async def find() -> None:
        """Takes as long as the slowest driver; only who needs one of them waits."""
        await asyncio.gather(smapiv1.start(service.spawn), smapiv3.start(boot, within=START_WITHIN))
        plugins.settled()
        await smapiv3.watch()

    service.spawn(find(), "look for drivers and plug-ins")
    hosts = [
        HostStorage(
            config.uuid, plugins, journal, secret_of=on_bus(service.bus, config.uuid), look_out=plugins.look_out
        )
        for config in service.hosts
    ]
    sockets, programs = socket_folder(service.state_dir, options.run_dir), Programs(options.qemu_nbd)
    attaching, transfers, motions, workers = [], [], [], Reserve()
    addresses = {config.uuid: config.address for config in service.hosts}
    for host in hosts:
        await host.start(boot)
        later = host.repositories.unfound()
        now = [sr for sr in host.repositories.missing() if sr not in later]
        service.spawn(host.attach_again(later), f"attach the SRs of {host.host} whose types are not found yet")
        attaching.append(service.spawn(host.attach_again(now), f"attach the SRs of {host.host} again"))
        calls.follow(host)
        motion = Motion(host, service.bus, journal, place(options, host.host, addresses[host.host], sockets, programs))
        motions.append(motion)
        moving = Transfers(
            *(host.repositories, host.datapaths, host.locks, sockets, programs, options.client_patience),
            sending=motion.sending,
            reserve=workers,
        )
        transfers.append(moving)
        handlers = Handlers(host, plugins, service.bus, moving, plugins.complete)
        for method, handler in (*handlers.table(), *motion.table()):
            await service.serve(method, calls.measured(method, handler), host=host.host)
    fronts = serve_nbd(service, options, hosts, sockets, programs)

    async def close() -> None:
        await asyncio.gather(*(moving.close() for moving in transfers), *(front.close() for front in fronts))
        await calls.end()
        await asyncio.gather(*(motion.close() for motion in motions))
        for plugin in plugins.values():
            await plugin.close()
        await smapiv1.close()
        await smapiv3.close()
        await journal.close()
        lifetime.end()

    service.on_stop(close)
    # whoever asks for an SR that takes longer waits for its lock; the others are served meanwhile
    await asyncio.wait(attaching, timeout=START_WITHIN)
    service.spawn(_retry(hosts, options.retry_interval), "attach SRs again")
    for motion in motions:
        service.spawn(motion.clear(), "clear mirrors away")


def _announce(service: Service) -> None:
    for config in service.hosts:
        service.spawn(_say_drivers(service.bus, config.uuid), "say which drivers there are")


async def _say_drivers(bus: Bus, host: str) -> None:
    try:
        await bus.publish(contract.DRIVERS_CHANGED, contract.DriversChanged(host=host), host=host)
    except BusError as error:
        log.warning("nobody hears that SR types have changed: %s", error)


async def _retry(hosts: list[HostStorage], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        for host in hosts:
            await host.retry()
