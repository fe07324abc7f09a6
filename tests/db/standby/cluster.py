"""Database processes of several hosts in one process, over the memory bus."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from services.db import seed
from services.db import service as db_service
from services.db.disk import Disk
from shared.bus.contract import Empty
from shared.bus.endpoint import Endpoint
from shared.bus.interface import HostOffline
from shared.bus.memory import MemoryBroker
from shared.bus.timing import Timing
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import db as contract
from shared.contracts.alerts import ALERT, Alert
from shared.service import Service
from shared.store import Store
from tests.db import rows

QUICK = Timing(probe_first=0.2, probe_every=0.2, grace=2.0, settle=0.1, drain=1.0)
PATIENCE = 15.0


class Cluster:
    """`uuids`: of its hosts, in order; the first is primary at first. `bus`: a client's."""

    def __init__(self, folder: Path, hosts: int = 3) -> None:
        self.folder = folder
        self.broker = MemoryBroker()
        self.uuids = sorted(str(uuid.uuid4()) for _ in range(hosts))
        self.alerts: list[Alert] = []
        self.bus: Endpoint
        self._services: dict[int, Service] = {}

    async def start(self, *numbers: int, **options: Any) -> None:
        self.bus = await self.broker.connect("client", QUICK)
        await self.bus.subscribe(ALERT, lambda alert, _: self.alerts.append(alert))
        for number in numbers:
            await self.run(number, **options)

    async def run(self, number: int, **options: Any) -> None:
        """Starts, or starts again, the process of that host."""
        folder = self.folder / f"host{number}"
        folder.mkdir(exist_ok=True)
        (folder / "seed.json").write_bytes(described(self.uuids))
        config = Config(
            service="db",
            state_dir=str(folder),
            bus=BusConfig(url="memory:"),
            pool="pool",
            hosts=[HostConfig(uuid=self.uuids[number], name=f"host{number}", address=f"127.0.0.{number + 11}")],
            options={
                "seed": str(folder / "seed.json"),
                "role": "standby" if number else "primary",
                "history_bytes": 0,
                **options,
            },
        )
        service = Service(config, await self.broker.connect(f"db{number}", QUICK))
        self._services[number] = service
        await db_service.setup(service, self.new_disk(number))
        await service.open_queues()

    def new_disk(self, number: int) -> Disk | None:
        """By which the process of that host writes; None: as any process."""
        return None

    def bus_of(self, number: int) -> Endpoint:
        bus = self._services[number].bus
        assert isinstance(bus, Endpoint)
        return bus

    def cut(self, number: int) -> None:
        """The process of that host has no connection any more."""
        self.broker.cut(self.bus_of(number))

    async def heal(self, number: int) -> None:
        """Returns when it can be asked again."""
        self.broker.heal(self.bus_of(number))

        async def there() -> bool:
            try:
                await self.role(number)
            except HostOffline:
                return False
            return True

        await until(there)

    def stopped(self, number: int) -> bool:
        return self._services[number].stopping.is_set()

    async def kill(self, number: int) -> None:
        """As kill -9: nothing is finished, nobody gets an answer."""
        service = self._services.pop(number)
        bus = service.bus
        assert isinstance(bus, Endpoint)
        tasks = list(service._tasks)
        await bus.abandon()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self, number: int) -> None:
        """As SIGTERM: it finishes what it does."""
        await self._services.pop(number).close()

    async def kill_at_once(self, number: int) -> None:
        """Not even what is on its way to the disk gets there: the folder is put back as it was a moment ago."""
        folder = self.folder / f"host{number}"
        copy = self.folder / "copy"
        shutil.copytree(folder, copy)
        await self.kill(number)
        shutil.rmtree(folder)
        copy.rename(folder)

    async def stop(self) -> None:
        for service in self._services.values():
            await service.close()
        await self.bus.close()

    # ---- what clients do

    async def write(self, *changes: contract.Change, timeout: float = 10.0, **given: Any) -> contract.Committed:
        return await self.bus.call(
            contract.TRANSACT, contract.Transact(changes=list(changes), **given), timeout=timeout
        )

    async def network(self, name: str) -> str:
        """A new row; returns its reference."""
        made = rows.network(name)
        await self.write(made)
        return made.ref

    async def promote(self, number: int, planned: bool = False) -> contract.Promoted:
        request = contract.Promote(planned=planned)
        return await self.bus.call(contract.PROMOTE, request, host=self.uuids[number])

    async def status(self) -> contract.DbStatus:
        return await self.bus.call(contract.DB_STATUS, Empty())

    async def role(self, number: int) -> contract.DbRole:
        return await self.bus.call(contract.DB_ROLE, Empty(), host=self.uuids[number])

    async def rows(self, number: int) -> Store:
        """All that the process of that host holds."""
        return await fetch(self.bus, self.uuids[number])

    async def caught_up(self, *numbers: int) -> None:
        """Those hosts have durably what the primary has."""
        await caught_up(self.bus, [self.uuids[number] for number in numbers])


def described(hosts: list[str]) -> bytes:
    """The seed of a pool with these hosts, the first of which is coordinator."""
    seeded = seed.Seed(
        pool=seed.PoolSeed(uuid=str(uuid.uuid4()), name_label="pool"),
        hosts=[
            seed.HostSeed(uuid=host, name=f"host{index}", address=f"127.0.0.{index + 11}", coordinator=index == 0)
            for index, host in enumerate(hosts)
        ],
        network=seed.NetworkSeed(uuid=str(uuid.uuid4()), name_label="network", bridge="xenbr0"),
        sr=seed.SrSeed(uuid=str(uuid.uuid4()), name_label="storage", type="fake"),
    )
    return msgspec.json.encode(seeded)


async def caught_up(bus: Endpoint, hosts: list[str]) -> None:
    """They have durably what the primary has now."""
    status: contract.DbStatus | None = None

    async def there() -> bool:
        nonlocal status
        try:
            status = status or await bus.call(contract.DB_STATUS, Empty())
            roles = [await bus.call(contract.DB_ROLE, Empty(), host=host) for host in hosts]
        except HostOffline:
            return False
        return all(
            role.role == "standby" and role.caught_up and role.term >= status.term and role.durable >= status.durable
            for role in roles
        )

    await until(there)


async def fetch(bus: Endpoint, host: str) -> Store:
    store, request = Store(), contract.SnapshotRequest()
    while True:
        page = await bus.call(contract.HOST_SNAPSHOT, request, host=host)
        store.add(page.rows)
        if page.page + 1 >= page.pages:
            store.complete(page.generation, page.term)
            return store
        request = contract.SnapshotRequest(snapshot=page.snapshot, page=page.page + 1)


def contents(store: Store) -> dict[tuple[str, str], tuple[int, int, dict[str, Any]]]:
    """Every row with its stamps."""
    return {(row.cls, row.ref): (row.created, row.modified, dict(row.fields)) for row in store.snapshot()}


async def until(there: Callable[[], Awaitable[bool]], timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not await there():
        assert time.monotonic() < deadline, "what was waited for has not come"
        await asyncio.sleep(0.02)
