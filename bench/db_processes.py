"""Database processes to be measured, each a process of its own over one private RabbitMQ node, and no other service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.bus import Bare
from pool import rabbitmq, toml
from shared.bus import amqp
from shared.bus.contract import Empty
from shared.bus.endpoint import Endpoint
from shared.bus.interface import BusError
from shared.contracts.db import DB_STATUS, TRANSACT, Create, DbStatus, Transact, Update
from shared.errors import ApiError

PATIENCE = 60.0


@dataclass
class Site:
    """A folder with a broker. `processes`: of the database, by number of their host."""

    folder: Path
    bus: str
    hosts: list[str]
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def state(self, number: int = 0, name: str = "db") -> Path:
        """The state folder of a process."""
        path = self.folder / f"{name}{number}"
        path.mkdir(exist_ok=True)
        return path

    def start(self, number: int = 0, name: str = "db", **options: Any) -> psutil.Process:
        host = {"uuid": self.hosts[number], "name": f"host{number}", "address": f"127.0.0.{number + 11}"}
        document = {
            "service": "db",
            "state_dir": str(self.state(number, name)),
            "log_level": "warning",
            "bus": {"url": self.bus},
            "hosts": [{**host, "simulated": True}],
            "options": {"role": "standby" if number else "primary", **options},
        }
        config = self.folder / f"{name}{number}.toml"
        config.touch(mode=0o600)
        config.write_text(toml.dumps(document))
        with (self.folder / f"{name}{number}.log").open("ab") as log:
            command = [sys.executable, "-m", "services.db", "--config", str(config)]
            self.processes[number] = subprocess.Popen(command, stdout=log, stderr=log)
        return psutil.Process(self.processes[number].pid)

    def stop(self, number: int = 0) -> None:
        process = self.processes.pop(number)
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, number: int = 0) -> None:
        process = self.processes.pop(number)
        process.kill()
        process.wait()

    def seed(self) -> str:
        """A file that describes a pool of these hosts."""
        described = {
            "pool": {"uuid": str(uuid.uuid4()), "name_label": "bench"},
            "hosts": [
                {"uuid": host, "name": f"host{number}", "address": f"127.0.0.{number + 11}", "coordinator": not number}
                for number, host in enumerate(self.hosts)
            ],
            "sr": {"uuid": str(uuid.uuid4()), "name_label": "storage", "type": "nfs", "location": "nowhere"},
            "network": {"uuid": str(uuid.uuid4()), "name_label": "network", "bridge": "xenbr0"},
        }
        path = self.folder / "seed.json"
        path.write_bytes(msgspec.json.encode(described))
        return str(path)


@contextmanager
def site(hosts: int = 1) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="bench-db-") as name:
        folder = Path(name)
        node = rabbitmq.start(folder / "bus")
        made = Site(folder, node.url, sorted(str(uuid.uuid4()) for _ in range(hosts)))
        try:
            yield made
        finally:
            for number in list(made.processes):
                made.stop(number)
            rabbitmq.stop(node)


class Client:
    """A writer of networks of its own, and the bare round trip that its calls are compared with."""

    def __init__(self, bus: Endpoint, bare: Bare) -> None:
        self.bus = bus
        self.bare = bare
        self.refs: list[str] = []

    async def status(self) -> DbStatus:
        """As soon as a database answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await self.bus.call(DB_STATUS, Empty(), timeout=1.0)
            except (BusError, ApiError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.01)

    async def make_rows(self, count: int) -> None:
        self.refs = [f"OpaqueRef:{uuid.uuid4()}" for _ in range(count)]
        rows = [Create(cls="network", ref=ref, fields={"name_label": "n", "MTU": 1500}) for ref in self.refs]
        await self.bus.call(TRANSACT, Transact(changes=[*rows]), timeout=PATIENCE)

    async def write(self, text: str, ref: str = "") -> int:
        """One field, durably. Returns the generation."""
        change = Update(cls="network", ref=ref or self.refs[0], fields={"name_description": text})
        return (await self.bus.call(TRANSACT, Transact(changes=[change]), timeout=PATIENCE)).generation


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """With the other side of the bare calls in a process of its own."""
    command = [sys.executable, "-m", "bench.bus", "--serve", url]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    if await server.stdout.readline() != b"ready\n":
        raise RuntimeError("the server of bare calls did not start")
    bus = await amqp.connect(url, "bench-db")
    try:
        yield Client(bus, await Bare.connect(url))
    finally:
        await bus.close()
        server.kill()
        await server.wait()
