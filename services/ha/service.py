"""The ha service: this host's heartbeats; on the coordinator also the watch over everybody's.

Liveness only. Fencing and restarts need a liveness daemon that does not depend on the bus.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import Gauge

from services.ha import heartbeat
from services.ha.clocks import Clocks
from services.ha.options import HaOptions
from services.ha.records import DatabaseRecords, HostRecords
from services.ha.watch import Watch
from shared import host_role
from shared.contracts.ha import LIVENESS
from shared.database import Database
from shared.replica import Replica
from shared.service import Service


async def setup(service: Service) -> None:
    await serve(service, None)


async def serve(service: Service, records: HostRecords | None) -> None:
    """`records`: where the hosts are recorded; None: in the database."""
    options = service.options(HaOptions)
    hosts = [host.uuid for host in service.hosts]
    for host in hosts:
        await service.present(service.name, host=host)
    if hosts:
        service.spawn(heartbeat.send(service.bus, hosts, options.interval), "heartbeats")
    coordinator = options.coordinator
    if options.role_file:
        coordinator = host_role.follow(service, Path(options.role_file)).is_coordinator
    if coordinator:
        if records is None:
            replica = Replica(service.bus)
            service.spawn(replica.run(), "replica")
            records = DatabaseRecords(replica, Database(service.bus, replica))
        watch = Watch(service.bus, records, options.limit)
        await watch.start()
        await service.serve(LIVENESS, watch.liveness)
        live = Gauge("ha_hosts_live", "Hosts recorded as live", registry=service.registry)
        live.set_function(lambda: sum(records.live().values()))
        service.spawn(watch.run(), "watch")
        clocks = Clocks(service.bus, records)
        await clocks.start()
        service.spawn(clocks.run(), "clocks")
