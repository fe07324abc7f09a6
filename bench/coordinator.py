"""A coordinator's API to be measured: broker, database and API as processes of their own, with as many VMs as wanted.

No other service runs and no host is connected, so that what the API process uses is what its clients make it do.
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.population import creations
from pool import rabbitmq, toml
from shared import passwords
from shared.bus import amqp
from shared.contracts.db import TRANSACT, Change, Transact, Update

ADDRESS = "127.0.5.11"
USER, PASSWORD = "root", "bench"
BATCH = 1000
"""Rows in one transaction when the database is filled."""
PATIENCE = 120.0
IDLE = 0.05
"""Share of a CPU below which the API has nothing left to do."""


@dataclass
class Coordinator:
    """`vms`: refs of those that were made."""

    directory: Path
    port: int
    bus: str
    network: str = ""
    sr: str = ""

    def __post_init__(self) -> None:
        self.vms: list[str] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def process(self) -> psutil.Process:
        """The API's."""
        return psutil.Process(self.processes["api"].pid)

    @property
    def cpu(self) -> float:
        """Seconds that the API process has used."""
        return cpu_seconds(self.processes["api"].pid)

    @property
    def resident(self) -> float:
        """MiB of the API process."""
        return self.process.memory_info().rss / 2**20

    # ---- processes

    def start(self, service: str) -> None:
        command = [sys.executable, "-m", f"services.{service}", "--config", str(self.directory / f"{service}.toml")]
        with (self.directory / f"{service}.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, service: str) -> None:
        process = self.processes.pop(service)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart_api(self) -> None:
        """Its rows then come as a snapshot, and nothing is encoded."""
        self.stop("api")
        self.start("api")
        self.wait_ready()
        self.wait_idle()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            if self.processes["api"].poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the API does not start: {(self.directory / 'api.log').read_text()[-1000:]}")

    def wait_idle(self) -> None:
        """Until the API has done what nobody waits for, such as looking at what every object allows."""
        deadline, quiet = time.monotonic() + PATIENCE, 0
        while quiet < 3 and time.monotonic() < deadline:
            before = self.cpu
            time.sleep(0.2)
            quiet = quiet + 1 if self.cpu - before < 0.2 * IDLE else 0

    # ---- calls

    def call(self, method: str, *params: Any) -> Any:
        """One call over JSON-RPC on a connection of its own."""
        connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=60)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        connection.request("POST", "/jsonrpc", body)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def login(self) -> str:
        return str(self.call("session.login_with_password", USER, PASSWORD, "1.0", f"bench {time.monotonic()}"))

    # ---- rows

    def populate(self, vms: int) -> None:
        """Makes VMs with all that belongs to them until there are so many; then the API has nothing left to do."""
        made = len(self.vms)
        rows = list(creations(vms - made, network=self.network, sr=self.sr, seed=made + 1, first=made))
        self.vms += [row.ref for row in rows if row.cls == "VM"]
        self.write(rows)

    def change(self, vms: list[str]) -> None:
        """Writes a field of these VMs, so that they have to be encoded again."""
        text = f"changed {time.monotonic()}"
        self.write([Update(cls="VM", ref=ref, fields={"name_description": text}) for ref in vms])

    def write(self, changes: Sequence[Change]) -> None:
        """Straight into the database; returns when the API has nothing left to do."""
        uvloop.run(_write(self.bus, changes))
        self.wait_idle()


def cpu_seconds(pid: int) -> float:
    """CPU of all threads of a process, user and system, to the nanosecond: a tick of `times` is ten milliseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def _write(url: str, changes: Sequence[Change]) -> None:
    bus = await amqp.connect(url, "bench-population")
    try:
        for begin in range(0, len(changes), BATCH):
            await bus.call(TRANSACT, Transact(changes=list(changes[begin : begin + BATCH])), timeout=PATIENCE)
    finally:
        await bus.close()


@contextmanager
def running(vms: int = 0) -> Iterator[Coordinator]:
    """A coordinator with so many VMs, idle."""
    with tempfile.TemporaryDirectory(prefix="bench-api-") as name:
        directory = Path(name)
        node = rabbitmq.start(directory / "bus")
        coordinator = Coordinator(directory, 8080, node.url)
        try:
            _configure(coordinator)
            coordinator.start("db")
            coordinator.start("api")
            coordinator.wait_ready()
            session = coordinator.login()
            coordinator.network = coordinator.call("network.get_all", session)[0]
            coordinator.sr = coordinator.call("SR.get_all", session)[0]
            if vms:
                coordinator.populate(vms)
            yield coordinator
        finally:
            for service in reversed(list(coordinator.processes)):
                coordinator.stop(service)
            rabbitmq.stop(node)


def _configure(coordinator: Coordinator) -> None:
    directory = coordinator.directory
    host = {"uuid": str(uuid.uuid4()), "name": "bench", "address": ADDRESS, "simulated": True}
    seed = {
        "pool": {"uuid": str(uuid.uuid4()), "name_label": "bench"},
        "hosts": [{**host, "coordinator": True}],
        "sr": {"uuid": str(uuid.uuid4()), "name_label": "storage", "type": "nfs", "location": "nowhere"},
        "network": {"uuid": str(uuid.uuid4()), "name_label": "network", "bridge": "xenbr0"},
    }
    (directory / "seed.json").write_text(json.dumps(seed))
    passwords.write(directory / "users", {USER: passwords.hash_password(PASSWORD)})
    options: dict[str, dict[str, Any]] = {
        "db": {"seed": str(directory / "seed.json")},
        "api": {"http_port": coordinator.port, "https_port": 0, "password_file": str(directory / "users")},
    }
    for service, own in options.items():
        document = {
            "service": service,
            "state_dir": str(directory / service),
            "log_level": "warning",
            "bus": {"url": coordinator.bus},
            "hosts": [host],
            "options": own,
        }
        path = directory / f"{service}.toml"
        path.touch(mode=0o600)
        path.write_text(toml.dumps(document))
