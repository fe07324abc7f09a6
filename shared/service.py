"""What every service process does the same way: start, wait for the bus, answer `ping`, stop.

`services/<name>/__main__.py` is:

    from shared.service import main
    from services.<name>.service import setup

    main("<name>", setup)

`setup(service)` registers handlers (`service.serve`), starts background work (`service.spawn`) and returns; queues
open when it has returned. Services start in any order: what is not there yet is waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from prometheus_client import CollectorRegistry, generate_latest

from shared import garbage, logs, trace
from shared.bus.contract import Empty, Method, Reply, Request, Scope
from shared.bus.interface import Bus, BusError, Handler, StreamHandler
from shared.config import Config, ConfigError, HostConfig, Options, load, options
from shared.contracts import service as contract

VERSION = "0.1.0"
STOP_TIMEOUT = 10.0
"""Seconds that running handlers get to finish after SIGTERM."""

log = logging.getLogger("service")


class Service:
    """One running service process.

    `registry` holds its Prometheus metrics; `details` are the lines of its `status` answer.
    """

    def __init__(self, config: Config, bus: Bus) -> None:
        self.config = config
        self.bus = bus
        self.registry = CollectorRegistry()
        self.details: dict[str, str] = {}
        self.state = "starting"
        self.started = time.time()
        self.stopping = asyncio.Event()
        self.status = 0
        """What the process will end with, unless something fails."""
        self._queues: dict[tuple[str, str | None], None] = {}
        self._later: dict[tuple[str, str | None], None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_stop: list[Callable[[], Awaitable[None]]] = []

    @property
    def name(self) -> str:
        return self.config.service

    @property
    def hosts(self) -> list[HostConfig]:
        return self.config.hosts

    @property
    def state_dir(self) -> Path:
        return self.config.state

    def options(self, kind: type[Options]) -> Options:
        return options(self.config, kind)

    async def serve(
        self,
        method: Method[Request, Reply],
        handler: Handler[Request, Reply] | StreamHandler[Request, Reply],
        *,
        host: str | None = None,
    ) -> None:
        """Adds a method to the service's queue (of that host); `ping`, `status` and `metrics` come with the first."""
        await self.present(method.service, host=host)
        await self.bus.serve(method, handler, host=host)

    async def present(self, name: str, *, host: str | None = None, later: bool = False) -> None:
        """Makes the service's queue (of that host) answer `ping`, `status` and `metrics`, with or without methods.

        `later`: it is not opened and closed with the others; whoever asks for that does both by the bus.
        """
        key = (name, host)
        if key not in self._queues and key not in self._later:
            (self._later if later else self._queues)[key] = None
            scope = Scope.HOST if host else Scope.POOL
            await self.bus.serve(contract.ping(name, scope), self._ping, host=host)
            await self.bus.serve(contract.status(name, scope), self._status, host=host)
            await self.bus.serve(contract.metrics(name, scope), self._metrics, host=host)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Starts background work that ends with the service. If it fails, the service stops with that error."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def exit(self, status: int) -> None:
        """Ends the service in good order; its process ends with `status`."""
        self.status = status
        self.stopping.set()

    def on_stop(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Called in reverse order when the service stops, while the bus still works."""
        self._on_stop.append(callback)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.critical("background work %r failed", task.get_name(), exc_info=task.exception())
            self.state = "failed"
            self.stopping.set()

    async def _ping(self, _: Empty) -> Empty:
        return Empty()

    async def _status(self, _: Empty) -> contract.Status:
        return contract.Status(
            service=self.name,
            version=VERSION,
            pid=os.getpid(),
            started=self.started,
            state=self.state,
            details=self.details,
        )

    async def _metrics(self, _: Empty) -> contract.MetricsText:
        return contract.MetricsText(text=generate_latest(self.registry).decode())

    async def open_queues(self) -> None:
        for queue, host in self._queues:
            await self.bus.start_consuming(queue, host=host)
        self.state = "ready"

    async def close(self) -> None:
        """Stops taking requests, lets running ones finish, ends background work."""
        self.state = "stopping"
        for queue, host in self._queues:
            with contextlib.suppress(BusError):
                await self.bus.stop_consuming(queue, host=host)
        for callback in reversed(self._on_stop):
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await callback()
            except Exception:
                log.exception("stopping: a clean-up step failed")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.bus.close()


Setup = Callable[[Service], Awaitable[None]]


async def wait_for(
    what: str, attempt: Callable[[], Awaitable[Request]], stopping: asyncio.Event | None = None
) -> Request:
    """Repeats `attempt` until it gives an answer, with backoff and one log line when the reason changes.

    For what another service has to bring: an API error that is not a `BusError` is raised.
    """
    delay, told = 0.1, ""
    while True:
        try:
            return await attempt()
        except (BusError, OSError) as error:
            if str(error) != told:
                told = str(error)
                log.warning("waiting for %s: %s", what, told)
        if stopping is not None and stopping.is_set():
            raise asyncio.CancelledError
        await asyncio.sleep(delay * random.uniform(0.7, 1.3))
        delay = min(delay * 2, 3.0)


async def run(config: Config, setup: Setup) -> int:
    """Runs one service until SIGTERM or SIGINT. Returns the exit status."""
    from shared.bus import amqp  # here, so that unit tests of services do not need pika's adapter

    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, interrupted.set)
    connecting = asyncio.create_task(amqp.connect(config.bus.url, name=config.service))
    stop = asyncio.create_task(interrupted.wait())
    await asyncio.wait({connecting, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not connecting.done():
        connecting.cancel()
        return 0
    service = Service(config, connecting.result())
    starting = asyncio.create_task(_start(service, setup))
    ended = asyncio.create_task(service.stopping.wait())
    await asyncio.wait({starting, stop, ended}, return_when=asyncio.FIRST_COMPLETED)
    status = 0
    if starting.done() and not starting.cancelled() and starting.exception() is not None:
        log.critical("cannot start: %s", starting.exception(), exc_info=starting.exception())
        status = 1
    elif starting.done():
        garbage.settled()
        log.info("ready")
        await asyncio.wait({stop, ended}, return_when=asyncio.FIRST_COMPLETED)
        status = 1 if service.state == "failed" else service.status
    else:
        starting.cancel()
        await asyncio.wait({starting})
        status = 1 if service.state == "failed" else service.status
    log.info("stopping")
    await service.close()
    for task in (stop, ended):
        task.cancel()
    return status


async def _start(service: Service, setup: Setup) -> None:
    await setup(service)
    await service.open_queues()


def main(name: str, setup: Setup) -> None:
    """Entry point of `python -m services.<name> --config FILE`."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}", description=f"The {name} service of the pool.")
    parser.add_argument("--config", type=Path, required=True, help="the service's TOML file")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
        if config.service != name:
            raise ConfigError(f"{arguments.config} is for the service {config.service!r}, not {name!r}")
        config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (ConfigError, OSError) as error:
        sys.exit(f"{name}: {error}")
    host = config.hosts[0].uuid if len(config.hosts) == 1 else ""
    logs.configure(name, host, config.log_level)
    hosts = frozenset(each.uuid for each in config.hosts)
    trace.exporter.open(config.state / "spans.jsonl", name, config.hosts[0].name if host else "", hosts)
    try:
        status = uvloop.run(run(config, setup))
    except (ConfigError, msgspec.ValidationError) as error:
        log.critical("cannot start: %s", error)
        status = 1
    finally:
        trace.exporter.close()
    sys.exit(status)
