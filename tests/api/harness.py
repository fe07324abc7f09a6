"""A pool in one process: the real database and API services on the bus in memory, hosts that are fakes.

    pool = await Pool.start(folder, hosts=2)
    client = await pool.login()
    vm = await client.call("VM.clone", template, "name")

The database's redo log is real; nothing listens on a port.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from services.api import service as api_service
from services.api.allowed import ALLOWED, published
from services.api.api import Api
from services.api.edge.dispatcher import Answer, Caller, Waiting
from services.api.wire.jsonrpc import JSON
from services.api.wire.raw import RawParams
from services.db import seed
from services.db import service as db_service
from shared import host_role, passwords, pool_secret
from shared.bus.endpoint import Endpoint
from shared.bus.memory import MemoryBroker
from shared.bus.timing import Timing
from shared.config import BusConfig, Config, HostConfig
from shared.contracts.db import Change, Update
from shared.errors import ApiError
from shared.host_role import COORDINATOR, member_of
from shared.service import Service
from shared.store import Store
from tests.api.fake_host import MIB, Disks, FakeHost

QUICK = Timing(probe_first=0.05, probe_every=0.1, grace=0.3, settle=0.05, drain=2.0)
PATIENCE = 30.0
"""Seconds that a test waits for something before it fails."""


class Client:
    """Calls through the dispatcher, as the edge would, with values as on the JSON-RPC wire."""

    def __init__(self, pool: Pool, api: api_service.Core, caller: Caller, session: str = "") -> None:
        self._pool = pool
        self._core = api
        self._caller = caller
        self.session = session

    async def raw(self, method: str, *params: Any) -> Any:
        """Parameters as they are, session included. Raises the failure as an `ApiError`."""
        outcome = self._core.dispatcher.call(self._caller, method, RawParams(list(params)), JSON)
        if isinstance(outcome, Waiting):
            outcome = await outcome.answer
        elif not isinstance(outcome, Answer):
            outcome = await outcome
        if outcome.error is not None:
            raise ApiError(outcome.error[0], *outcome.error[1:])
        return orjson.loads(outcome.whole)

    async def call(self, method: str, *params: Any) -> Any:
        return await self.raw(method, self.session, *params)

    def begin(self, method: str, *params: Any) -> asyncio.Task[Any]:
        """The call, on its way."""
        return asyncio.create_task(self.call(method, *params), name=method)

    def sending(self, **headers: Any) -> Client:
        """The same client and session, with other headers (members of `Caller`)."""
        return Client(self._pool, self._core, msgspec.structs.replace(self._caller, **headers), self.session)

    async def refusal(self, method: str, *params: Any) -> list[str]:
        """The error of a call that must fail."""
        return await error_of(self.call(method, *params))


async def error_of(work: Awaitable[Any]) -> list[str]:
    try:
        value = await work
    except ApiError as error:
        return error.description
    raise AssertionError(f"it did not fail but answered {value!r}")


class Pool:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = MemoryBroker()
        self.disks = Disks()
        self.hosts: list[FakeHost] = []
        self._configs: list[HostConfig] = []
        self._db: Service | None = None
        self._options: dict[str, Any] = {}
        self._apis: dict[int, tuple[Service, api_service.Core]] = {}

    @staticmethod
    async def start(
        folder: Path, hosts: int = 2, memory: int = 8192 * MIB, connect: bool = True, **options: Any
    ) -> Pool:
        """`memory`: of each host, bytes. `connect`: returns when all hosts are in. `options`: of the API."""
        pool = Pool(folder)
        pool._options = options
        pool._configs = [
            HostConfig(uuid=str(uuid.uuid4()), name=f"host{number}", address=f"127.0.0.{number + 11}")
            for number in range(hosts)
        ]
        pool.hosts = [FakeHost(pool.broker, host.uuid, pool.disks, memory, QUICK) for host in pool._configs]
        pool._write_seed()
        pool_secret.write(pool.secret_file, [pool_secret.generate()])
        await pool.start_db()
        await pool.start_api()
        if connect:
            for host in pool.hosts:
                await host.up()
            await pool.until(lambda: all(row["enabled"] for row in pool.store.rows("host").values()))
            await pool.settled()
        return pool

    def _write_seed(self) -> None:
        described = seed.Seed(
            pool=seed.PoolSeed(uuid=str(uuid.uuid4()), name_label="pool"),
            hosts=[
                seed.HostSeed(
                    uuid=host.uuid, name=host.name, address=host.address, coordinator=host is self._configs[0]
                )
                for host in self._configs
            ],
            network=seed.NetworkSeed(uuid=str(uuid.uuid4()), name_label="network", bridge="xenbr0"),
            sr=seed.SrSeed(uuid=str(uuid.uuid4()), name_label="storage", type="fake"),
        )
        (self.folder / "seed.json").write_bytes(msgspec.json.encode(described))

    # ---- services

    def _config(self, name: str, hosts: list[HostConfig], **options: Any) -> Config:
        state = self.folder / f"{name}-{hosts[0].name if hosts else 'pool'}"
        state.mkdir(exist_ok=True)
        bus = BusConfig(url="memory:")
        return Config(service=name, state_dir=str(state), bus=bus, hosts=hosts, options=options)

    @property
    def secret_file(self) -> Path:
        return self.folder / "pool-secret"

    @property
    def secret(self) -> str:
        return pool_secret.read(self.secret_file)[0]

    def role_file(self, host: int) -> Path:
        """What that host is; made with its first start, as a real pool does it."""
        path = self.folder / f"host{host}.conf"
        if not path.exists():
            host_role.write(path, COORDINATOR if host == 0 else member_of(self._configs[0].address))
        return path

    async def start_db(self) -> None:
        config = self._config("db", [], seed=str(self.folder / "seed.json"))
        service = Service(config, await self.broker.connect("db", QUICK))
        await db_service.setup(service)
        await service.open_queues()
        self._db = service

    async def start_api(self, host: int = 0) -> api_service.Core:
        secret = self.folder / "passwords"
        secret.touch()
        options = {
            "role_file": str(self.role_file(host)),
            "http_port": 0,
            "https_port": 0,
            "password_file": str(secret),
            "log_dir": str(self.folder / "logs"),
            "pool_secret_file": str(self.secret_file),
        }
        config = self._config("api", [self._configs[host]], **options, **self._options)
        service = Service(config, await self.broker.connect("api", QUICK))
        core = await api_service.start(service)
        await service.open_queues()
        self._apis[host] = (service, core)
        return core

    async def kill_api(self, host: int = 0) -> None:
        """As kill -9: nothing is finished, nobody gets an answer."""
        service, core = self._apis.pop(host)
        core.api.executor._closing = True  # else it would go on trying to write outcomes, for seconds
        await kill(service)

    async def stop_api(self, host: int = 0) -> None:
        """As SIGTERM."""
        service, _ = self._apis.pop(host)
        await service.close()

    @property
    def stopped(self) -> bool:
        """Whether background work of the coordinator's API has failed, which ends the process."""
        return self._apis[0][0].stopping.is_set()

    async def until_stopped(self) -> None:
        await self._apis[0][0].stopping.wait()

    async def kill_db(self) -> None:
        assert self._db is not None
        service, self._db = self._db, None
        await kill(service)

    async def stop(self) -> None:
        for service, _ in self._apis.values():
            await service.close()
        for host in self.hosts:
            await host.down()
        if self._db is not None:
            await self._db.close()

    # ---- looking in

    @property
    def core(self) -> api_service.Core:
        return self._apis[0][1]

    def core_of(self, host: int) -> api_service.Core:
        return self._apis[host][1]

    def service_of(self, host: int) -> Service:
        """The API process of that host."""
        return self._apis[host][0]

    @property
    def api(self) -> Api:
        return self.core.api

    @property
    def api_bus(self) -> Endpoint:
        bus = self._apis[0][0].bus
        assert isinstance(bus, Endpoint)
        return bus

    @property
    def db_bus(self) -> Endpoint:
        assert self._db is not None
        assert isinstance(self._db.bus, Endpoint)
        return self._db.bus

    @property
    def store(self) -> Store:
        """The coordinator's rows."""
        return self.api.store

    def row(self, cls: str, ref: str) -> Any:
        return self.store.row(cls, ref)

    def ref(self, cls: str, name: str) -> str:
        [found] = self.store.by_name_label(cls, name)
        return found

    def host_ref(self, number: int) -> str:
        found = self.store.ref_of_uuid("host", self.hosts[number].uuid)
        assert found is not None
        return found

    def host_of(self, vm: str) -> FakeHost:
        """Where the rows say the VM is."""
        name = self.store.get("host", self.store.get("VM", vm, "resident_on"), "uuid")
        return next(host for host in self.hosts if host.uuid == name)

    async def write(self, *changes: Change) -> None:
        """Straight into the database, past the API."""
        await self.api.database.transact(changes)

    async def until(self, holds: Callable[[], Any]) -> None:
        """Waits until the coordinator's rows make it true; looked at after every commit."""
        changed = asyncio.Event()

        def watch(*_: Any) -> None:
            changed.set()

        replica = self.api.replica
        replica.watch(watch)
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    changed.clear()
                    await changed.wait()
        finally:
            replica.unwatch(watch)

    async def idle(self) -> None:
        """Waits until no call is being carried out."""
        async with asyncio.timeout(PATIENCE):
            while running := self.api.running.works():
                await asyncio.wait(running)
                await asyncio.sleep(0)  # its outcome may still be on its way to the database

    async def settled(self) -> None:
        """Waits until `allowed_operations` of all objects are published: nothing is written any more by itself."""

        def is_published(cls: str, ref: str) -> bool:
            try:
                return not published(self.store, cls, ref, ())
            except ApiError:  # nobody can tell what it allows
                return True

        def all_published() -> bool:
            return all(is_published(cls, ref) for cls in ALLOWED for ref in self.store.rows(cls))

        await self.api.database.transact([])
        await self.until(all_published)

    # ---- clients

    def client(
        self, host: int = 0, trusted: bool = False, user_agent: str = "tests", address: str = "127.0.0.1", **told: Any
    ) -> Client:
        """`told`: what else the connection says of the caller."""
        uuid = self._configs[host].uuid
        caller = Caller(host=uuid, address=address, trusted=trusted, user_agent=user_agent, **told)
        return Client(self, self._apis[host][1], caller)

    async def login(self) -> Client:
        """A session of root, as over the Unix socket."""
        client = self.client(trusted=True)
        client.session = await client.raw("session.login_with_password", "root", "", "1.0", "tests")
        return client

    def set_password(self, user: str, password: str) -> None:
        passwords.write(self.folder / "passwords", {user: passwords.hash_password(password)})

    async def vm(self, client: Client, name: str = "vm", **fields: Any) -> str:
        """A halted VM made from the bundled template, `fields` changed in its row."""
        template = self.ref("VM", "Tiny guest")
        vm = str(await client.call("VM.clone", template, name))
        await client.call("VM.provision", vm)
        if fields:
            await self.write(Update(cls="VM", ref=vm, fields=fields))
        return vm


async def kill(service: Service) -> None:
    """Ends a service like kill -9."""
    bus = service.bus
    assert isinstance(bus, Endpoint)
    await bus.abandon()
    tasks = list(service._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
