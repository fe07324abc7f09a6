"""A bus with a database that remembers, a webhook that can be told how to answer, and the service between them."""

# mypy: allow-untyped-calls
# (kombu's functions have no annotations)

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import orjson
import pytest
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from services.alerts.service import setup
from shared.bus import amqp, amqp_consumers
from shared.bus.contract import Empty
from shared.bus.interface import Bus
from shared.config import BusConfig, Config
from shared.contracts import service as service_contract
from shared.contracts.alerts import ALERT, CONSUMERS, Alert, Consumer
from shared.contracts.db import TRANSACT, Committed, Create, RowAbsent, Transact
from shared.errors import DatabaseConflict
from shared.service import Service

PATIENCE = 60.0


def alert(name: str = "VM_STARTED", priority: int = 5, **fields: Any) -> Alert:
    usual = {"cls": "VM", "obj_uuid": "vm-uuid", "body": f"{name} happened", "time": 1700000000.5}
    return Alert(id=str(uuid.uuid4()), name=name, priority=priority, **{**usual, **fields})


async def publish(bus: Bus, *alerts: Alert) -> None:
    for one in alerts:
        await bus.publish(ALERT, one, cls=one.cls, priority=str(one.priority), name=one.name)


class Database:
    """Serves `TRANSACT` as the database does for rows of class message; `hold` keeps it from answering."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.requests = 0
        self.asked = asyncio.Event()
        self.changed = asyncio.Condition()
        self.hold: asyncio.Event | None = None
        self.refuse: Exception | None = None

    async def transact(self, request: Transact) -> Committed:
        self.requests += 1
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.refuse is not None:
            raise self.refuse
        (change,), (given,) = request.changes, request.preconditions
        assert isinstance(change, Create)
        assert isinstance(given, RowAbsent)
        if given.ref in self.rows:
            raise DatabaseConflict(0, given.cls, given.ref)
        async with self.changed:
            self.rows[change.ref] = change.fields
            self.changed.notify_all()
        return Committed(generation=len(self.rows), term=1)

    async def stored(self, count: int) -> list[dict[str, Any]]:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: len(self.rows) >= count), PATIENCE)
        return list(self.rows.values())


class Hook:
    """A web server on loopback. `answer` decides the status of each request; `hold` keeps answers back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int = 0) -> None:
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answer: Callable[[int], int] = lambda number: 200
        self.hold = Event()
        self.hold.set()
        self.requests = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.requests += 1
                status = hook.answer(hook.requests)
                data = self.rfile.read(int(self.headers["Content-Length"]))
                request = {"path": self.path, "headers": dict(self.headers), **orjson.loads(data)}
                loop.call_soon_threadsafe(hook.received.put_nowait, request)
                hook.hold.wait(PATIENCE)
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?x=1"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.received.get(), PATIENCE)

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


def webhook(hook: Hook | str, name: str = "hook", **settings: Any) -> dict[str, Any]:
    url = hook if isinstance(hook, str) else hook.url
    quick = {"retry_first": 0.05, "retry_longest": 0.1, "timeout": 5.0}
    return {"kind": "webhook", "name": name, "url": url, **quick, **settings}


class Alerts:
    """Starts the service in this process or in one of its own, as often as a test wants; all share their queues."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.prefix = f"test-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._service: Service | None = None
        self.process: asyncio.subprocess.Process | None = None

    def config(self, *consumers: dict[str, Any]) -> Config:
        return Config(
            service="alerts",
            state_dir=str(self._folder),
            bus=BusConfig(url=self.url),
            pool="pool-uuid",
            options={"prefix": self.prefix, "consumers": list(consumers)},
        )

    async def start(self, *consumers: dict[str, Any]) -> Service:
        config = self.config(*consumers)
        self._service = Service(config, await amqp.connect(self.url))
        await setup(self._service)
        await self._service.open_queues()
        return self._service

    async def spawn(self, *consumers: dict[str, Any]) -> int:
        """The process's id, once it is ready."""
        path = self._folder / "alerts.toml"
        lines = [
            'service = "alerts"',
            f'state_dir = "{self._folder}"',
            f'[bus]\nurl = "{self.url}"',
            f'[options]\nprefix = "{self.prefix}"',
        ]
        for consumer in consumers:
            lines.append("[[options.consumers]]")
            lines += [f"{key} = {orjson.dumps(value).decode()}" for key, value in consumer.items()]
        path.write_text("\n".join(lines))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.alerts",
            "--config",
            str(path),
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        return self.process.pid

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> None:
        if self._service is not None:
            await self._service.close()
            self._service = None

    async def clean_up(self) -> None:
        await self.stop()
        if self.process is not None:
            await self.kill()

    def delete_queues(self, *names: str) -> None:
        with Connection(self.url) as connection, connection.channel() as channel:
            for name in ("xenapi.messages", *(f"webhook.{name}" for name in names)):
                channel.queue_delete(f"{self.prefix}.{name}")


async def consumers(bus: Bus) -> dict[str, Consumer]:
    answer = await bus.call(CONSUMERS, Empty())
    return {consumer.name: consumer for consumer in answer.consumers}


async def metrics(bus: Bus) -> str:
    method = service_contract.metrics("alerts", CONSUMERS.scope)
    return (await bus.call(method, Empty())).text


async def eventually(condition: Callable[[], Any]) -> None:
    """For what another thread does after the event that a test waited for."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 (asked over the bus: there is no event)
            await asyncio.sleep(0.02)


@pytest.fixture
async def bus(broker_url: str) -> AsyncIterator[Bus]:
    """A client of the pool's bus."""
    connected = await amqp.connect(broker_url)
    yield connected
    await connected.close()


@pytest.fixture
async def database(bus: Bus) -> AsyncIterator[Database]:
    served = Database()
    await bus.serve(TRANSACT, served.transact)
    await bus.start_consuming("db")
    yield served
    if served.hold is not None:
        served.hold.set()
    await bus.stop_consuming("db")


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    server = Hook(asyncio.get_running_loop())
    yield server
    await asyncio.to_thread(server.close)


@pytest.fixture
async def alerts(broker_url: str, tmp_path: Path) -> AsyncIterator[Alerts]:
    running = Alerts(broker_url, tmp_path)
    yield running
    await running.clean_up()
    await asyncio.to_thread(running.delete_queues, "hook", "slow", "urgent")


@pytest.fixture
def dead_letters(broker_url: str) -> Iterator[Callable[[], list[tuple[dict[str, Any], bytes]]]]:
    """What reaches the `dead` exchange from now on: headers and body."""
    connection = Connection(broker_url)
    channel = connection.channel()
    exchange = Exchange(amqp_consumers.DEAD, "fanout", durable=True)
    queue = Queue(f"test-{uuid.uuid4().hex[:8]}", exchange, exclusive=True)(channel)
    queue.declare()

    def take() -> list[tuple[dict[str, Any], bytes]]:
        found = []
        while (message := queue.get(no_ack=True)) is not None:
            found.append((message.headers, bytes(message.body)))
        return found

    yield take
    connection.release()
