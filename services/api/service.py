"""The API process: puts edge, dispatcher and the coordinator's followers together."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import orjson
from prometheus_client import Gauge, generate_latest

from services.api import exposition, failed_logins, role, secret_values, sweep, tasks
from services.api.access import Access, ConsoleAccess
from services.api.allowed import Publisher
from services.api.api import Api, Options
from services.api.audit import keeping
from services.api.audit.http import Audited
from services.api.authentication import PoolSecrets, authenticator
from services.api.blob_files import BlobFiles
from services.api.blob_keeper import BlobKeeper
from services.api.client_trust import ClientTrustFollower
from services.api.database_replication import DatabaseReplication
from services.api.directory.directory import Directory
from services.api.dispatch import XenApi
from services.api.edge.dispatcher import Answer, Caller, Waiting
from services.api.edge.endpoint import Endpoint, Kind, Limits
from services.api.edge.server import Edge
from services.api.edge.web import Health
from services.api.events import EventHub
from services.api.execute import Executor
from services.api.handlers.serving import HandlerTable
from services.api.host_connect import HostConnect
from services.api.host_side.service import HostSide
from services.api.merges import MergeRows
from services.api.nbd_service import NbdService
from services.api.observers import Observers
from services.api.placement import Placement
from services.api.rate_limit.gate import RateLimits, Settings
from services.api.row_waiters import RowWaiters
from services.api.sr_upkeep import SrUpkeep
from services.api.storage_drivers import StorageDrivers
from services.api.succession import Succession
from services.api.unfinished_disks import UnfinishedDisks
from services.api.unfinished_moves import UnfinishedMoves
from services.api.vm_events import VmEvents
from services.api.wire.jsonrpc import JSON
from services.api.wire.raw import RawParams
from shared.config import ConfigError, HostConfig
from shared.contracts.api import XENAPI, XenApiAnswer, XenApiCall
from shared.contracts.db import Change, RowPresent, Update
from shared.contracts.task import PROGRESS, Progress
from shared.database import Database
from shared.errors import ApiError
from shared.replica import Replica
from shared.service import Service

log = logging.getLogger("api")

PATIENCE = 5.0
"""Seconds that a member waits for the rows before it answers without them, in emergency mode."""


class _Facts:
    """What `/health` and `/metrics` tell."""

    def __init__(self, service: Service, api: Api) -> None:
        self._service, self._api = service, api

    def health(self, host: str) -> Health:
        details = {
            "role": "coordinator" if self._api.is_coordinator else "member",
            "generation": str(self._api.store.generation),
            "bus": "connected" if self._service.bus.connected else "not connected",
        }
        return Health(ready=self._api.replica.ready and self._service.bus.connected, details=details)

    async def metrics(self, host: str) -> str:
        own = generate_latest(self._service.registry).decode()
        pool = self._api.is_coordinator and host == self._api.host_uuid
        return await exposition.gather(self._service.bus, host, own, pool=pool)


@dataclass(frozen=True, slots=True)
class Core:
    """An API process without its sockets."""

    api: Api
    dispatcher: XenApi
    host_side: HostSide


async def setup(service: Service) -> None:
    core = await start(service)
    api, options = core.api, core.api.options
    access = Audited(api, Access(api))
    handlers = HandlerTable(api, access)
    await handlers.begin()
    edge = Edge(
        dispatcher=core.dispatcher,
        authenticator=access,
        consoles=ConsoleAccess(api),
        handlers=handlers,
        facts=_Facts(service, api),
        bus=service.bus,
        certificates=core.host_side.certificates,
        is_coordinator=lambda host: api.is_coordinator,
        limits=Limits(connections=options.connections),
        site=Path(options.web_dir) if options.web_dir else None,
        https_only=options.website_https_only,
        proxies=options.proxies,
        turn=api.limits.request_turn,
    )
    service.registry.register(edge.statistics)
    for host in service.hosts:
        await edge.listen(host, _endpoints(options, host), https_only=_https_only(api, host))
    if api.is_coordinator:
        ClientTrustFollower(api, edge, core.host_side.trust(api.host_uuid)).begin()
    core.host_side.doors = edge
    service.spawn(core.host_side.catch_up(), "host side")
    service.on_stop(edge.close)


async def start(service: Service) -> Core:
    """Everything behind the edge; returns when the rows are there and what an earlier process left is settled.

    A member that does not get them in time returns without: it has to be there to be repaired.
    """
    options = service.options(Options)
    if options.role not in ("coordinator", "member"):
        raise ConfigError(f"option role must be coordinator or member, not {options.role!r}")
    role_file = Path(options.role_file) if options.role_file else None
    begun = role.started(role_file, options.role, options.coordinator)
    replica = Replica(service.bus)
    api = Api(
        bus=service.bus,
        replica=replica,
        database=Database(service.bus, replica),
        hosts=service.hosts,
        options=options,
        authenticator=authenticator(options.auth, options.password_file, options.pam_service),
        pool_secrets=PoolSecrets(Path(options.pool_secret_file) if options.pool_secret_file else None),
        role=role.Role(service, begun, role_file),
    )
    api.hub = EventHub(api)
    api.placement = Placement(api)
    api.waiters = RowWaiters(replica)
    limits = Settings(options.rate_limit, options.call_costs_file, options.max_auto_registered_callers)
    api.limits = RateLimits(api, limits)
    api.observers = Observers(api)
    await keeping.begin(service, api)
    api.blobs = BlobFiles(service.state_dir / "blobs")
    executor = api.executor = Executor()
    dispatcher = XenApi(api, api.hub, executor, service.config.trace_ratio)
    _count(service, api)
    service.spawn(replica.run(), "replica")
    host_side = HostSide(service, api)
    await host_side.serve()
    api.directory = Directory(service, api)
    await api.directory.serve()
    for host in service.hosts:
        await service.serve(XENAPI, _bus_calls(dispatcher, host), host=host.uuid)
    await NbdService(api).serve(service)
    await secret_values.serve(service, api)
    succession = api.succession = Succession(service, api)
    await succession.serve()
    service.spawn(succession.follow_file(), "role of the host")
    service.spawn(failed_logins.run(api), "failed logins")
    if api.is_coordinator:
        await replica.wait_ready()
        await succession.confirm()
        api.database.term = replica.lineage.reign
        api.role.on_leave(lambda: api.hub.refuse(ApiError("HOST_IS_SLAVE", api.coordinator_address)))
        await _coordinate(service, api)
    else:
        await _wait_awhile(replica)
    service.spawn(UnfinishedDisks(api).run(), "unfinished disks")
    service.spawn(succession.follow(), "the pool's coordinator")
    service.on_stop(executor.close)
    return Core(api, dispatcher, host_side)


async def _wait_awhile(replica: Replica) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await replica.wait_ready()
    except TimeoutError:
        log.warning("no rows after %.0f s: starting in emergency mode", PATIENCE)


def _endpoints(options: Options, host: HostConfig) -> list[Endpoint]:
    found = []
    if options.http_port:
        found.append(Endpoint(host.uuid, Kind.PLAIN, host.address, options.http_port))
    if options.https_port:
        found.append(Endpoint(host.uuid, Kind.TLS, host.address, options.https_port))
    if options.unix_socket:
        found.append(Endpoint(host.uuid, Kind.UNIX, path=options.unix_socket))
    return found


def _https_only(api: Api, host: HostConfig) -> bool:
    row = api.store.row("host", api.store.ref_of_uuid("host", host.uuid) or "")
    return row is not None and bool(row["https_only"])


def _count(service: Service, api: Api) -> None:
    def gauge(name: str, text: str, read: object) -> None:
        Gauge(name, text, registry=service.registry).set_function(read)  # type: ignore[arg-type]

    gauge("xapi_replica_generation", "Generation the API shows", lambda: api.store.generation)
    gauge("xapi_replica_resyncs", "Snapshots fetched", lambda: api.replica.resyncs)
    gauge("xapi_sessions", "Sessions", lambda: len(api.store.tables["session"].rows))
    gauge("xapi_tasks", "Tasks", lambda: len(api.store.tables["task"].rows))
    gauge("xapi_event_waiters", "Calls waiting in event.from", lambda: api.hub.waiting)
    gauge("xapi_calls_delayed", "Calls and requests that wait for their turn", lambda: api.limits.waiting)
    gauge("xapi_vms", "VMs, templates and snapshots", lambda: len(api.store.tables["VM"].rows))


async def _coordinate(service: Service, api: Api) -> None:
    """What only the coordinator does: takes over what an earlier process left, follows hosts, VMs and tasks."""
    await tasks.abandon(api, tasks.unattended(api, api.succession.predecessor))
    await sweep.drop_orphaned_locks(api)
    publisher = Publisher(api)
    vm_events = VmEvents(api)
    drivers = StorageDrivers(api)
    merges = MergeRows(api)
    hosts = HostConnect(api, vm_events, drivers)
    blobs = BlobKeeper(api)
    await blobs.begin()
    await vm_events.subscribe()
    await drivers.subscribe()
    await merges.subscribe()
    await hosts.subscribe()
    progress = _ProgressWriter(api)
    await api.bus.subscribe(PROGRESS, progress.on_progress)
    service.spawn(publisher.run(), "allowed operations")
    service.spawn(vm_events.run(), "VM events")
    service.spawn(progress.run(), "task progress")
    service.spawn(sweep.run(api), "sweep")
    service.spawn(drivers.run(), "SR types")
    service.spawn(merges.run(), "merges of images")
    service.spawn(SrUpkeep(api).run(), "scans of SRs")
    service.spawn(UnfinishedMoves(api).run(), "unfinished moves of disks")
    service.spawn(DatabaseReplication(api).run(), "copies of the database")
    if api.options.rate_limit:
        service.spawn(api.limits.run(), "callers")
    service.spawn(blobs.run(), "blob files")
    service.on_stop(hosts.close)
    await api.succession.announce()


class _ProgressWriter:
    """Writes how far tasks have come, several at once and not more often than clients look."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._latest: dict[str, float] = {}
        self._wake = asyncio.Event()

    def on_progress(self, progress: Progress, _: str) -> None:
        self._latest[progress.task] = progress.progress
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(0.25)
            self._wake.clear()
            latest, self._latest = self._latest, {}
            rows = self._api.store.rows("task")
            known = {
                task: value for task, value in latest.items() if task in rows and rows[task]["status"] == "pending"
            }
            changes: list[Change] = [
                Update(cls="task", ref=task, fields={"progress": min(max(value, 0.0), 1.0)})
                for task, value in known.items()
            ]
            if changes:
                try:
                    await self._api.database.transact(changes, [RowPresent(cls="task", ref=task) for task in known])
                except ApiError as error:
                    log.info("progress of %d tasks not written: %s", len(changes), error)


def _bus_calls(dispatcher: XenApi, host: HostConfig):  # type: ignore[no-untyped-def]
    """XenAPI calls that arrive over the bus, from services that act as clients."""

    async def call(request: XenApiCall) -> XenApiAnswer:
        caller = Caller(
            host=request.host or host.uuid,
            address=request.address,
            trusted=request.trusted,
            user_agent=request.user_agent,
            originator="cli",
        )
        try:
            outcome = dispatcher.call(caller, request.method, RawParams(request.params), JSON)
            answer = outcome if isinstance(outcome, Answer) else await _answer(outcome)
        except ApiError as error:
            return XenApiAnswer(error=error.description)
        if answer.error is not None:
            return XenApiAnswer(error=answer.error)
        return XenApiAnswer(value=orjson.loads(answer.whole))

    return call


async def _answer(outcome: object) -> Answer:
    work = outcome.answer if isinstance(outcome, Waiting) else outcome
    return await work  # type: ignore[misc,no-any-return]
