"""Two hosts, each with a storage and a VM service in a network namespace of its own, and one folder that both see."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pool import toml
from shared.bus import amqp
from shared.bus.contract import Empty, Method, Reply, Request, Scope
from shared.bus.endpoint import Endpoint
from shared.bus.timing import Timing
from shared.contracts import service as service_contract
from shared.contracts import storage as contract
from shared.service import wait_for
from tests.db.standby.links import Links
from tests.storage.support import HOST_A, HOST_B, SR

HOSTS = (HOST_A, HOST_B)
_QUICK = Timing(probe_first=0.5, probe_every=0.5)
_DEADLINE = 60.0
"""Seconds that a call may take: longer than any cut."""


class TwoHosts:
    """`folder`: its path must be short enough for sockets. `shared`: the SR's folder."""

    def __init__(self, folder: Path, links: Links, broker: str, bus: Endpoint, options: dict[str, dict[str, Any]]):
        self._folder, self._links, self._broker, self._bus, self._options = folder, links, broker, bus, options
        self._processes: dict[tuple[int, str], asyncio.subprocess.Process] = {}
        self.shared = folder / "sr"

    async def start(self, number: int, service: str) -> None:
        """Or starts it again."""
        home = self._folder / f"{number}"
        home.mkdir(exist_ok=True)
        document = {
            "service": service,
            "state_dir": str(home / service),
            "bus": {"url": self._links.url(number, self._broker)},
            "hosts": [{"uuid": HOSTS[number], "name": f"host{number}", "address": f"10.213.{number}.2"}],
            "options": {**self._options[service], "run_dir": str(home)},
        }
        config = home / f"{service}.toml"
        await asyncio.to_thread(config.write_text, toml.dumps(document))
        log = await asyncio.to_thread((home / f"{service}.log").open, "ab")
        with log:
            self._processes[number, service] = await asyncio.create_subprocess_exec(
                *(*self._links.within(number), sys.executable, "-m", f"services.{service}", "--config", str(config)),
                stdout=log,
                stderr=log,
            )
        ping = service_contract.ping(service, Scope.HOST)
        try:
            await asyncio.wait_for(wait_for(service, lambda: self._bus.call(ping, Empty(), host=HOSTS[number])), 40)
        except TimeoutError:
            said = await asyncio.to_thread((home / f"{service}.log").read_text)
            raise AssertionError(f"{service} of host {number} does not answer:\n{said[-4000:]}") from None

    async def attach(self) -> None:
        """The SR, on both."""
        device = {"location": str(self.shared)}
        await self.ask(0, contract.SR_CREATE, contract.SrCreate(sr=SR, type="file", device_config=device))
        for number in range(len(HOSTS)):
            await self.ask(number, contract.SR_ATTACH, contract.SrAttach(sr=SR, type="file", device_config=device))

    async def ask(self, number: int, method: Method[Request, Reply], request: Request) -> Reply:
        return await self._bus.call(method, request, host=HOSTS[number], timeout=_DEADLINE)

    async def cut(self, number: int) -> None:
        await asyncio.to_thread(self._links.cut, number)

    async def heal(self, number: int) -> None:
        await asyncio.to_thread(self._links.heal, number)

    async def kill(self, number: int, service: str) -> None:
        process = self._processes.pop((number, service))
        process.kill()
        await process.wait()

    async def stop(self) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._processes.values()))


@asynccontextmanager
async def two_hosts(
    folder: Path, broker: str, services: Sequence[str] = ("storage",), **options: dict[str, Any]
) -> AsyncIterator[TwoHosts]:
    """`options`: by service. The SR is attached on both."""
    links = Links(len(HOSTS))
    async with AsyncExitStack() as closing:
        closing.callback(links.remove)
        await asyncio.to_thread(links.make)
        await closing.enter_async_context(links.relay(broker))
        bus = await amqp.connect(broker, f"two-hosts-{os.getpid()}", _QUICK)
        closing.push_async_callback(bus.close)
        hosts = TwoHosts(folder, links, broker, bus, {service: options.get(service, {}) for service in services})
        closing.push_async_callback(hosts.stop)
        await asyncio.gather(*(hosts.start(number, service) for number in range(len(HOSTS)) for service in services))
        await hosts.attach()
        yield hosts
