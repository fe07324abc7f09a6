"""The HTTP handlers over real sockets, with the real API behind them; hosts are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from services.api.access import Access, ConsoleAccess
from services.api.edge.endpoint import Endpoint, Kind, Limits
from services.api.edge.server import Edge
from services.api.edge.tls import Certificates
from services.api.handlers.serving import HandlerTable
from shared.config import HostConfig
from tests.api.edge.fakes import Client as Connection
from tests.api.edge.fakes import FakeBus, FakeFacts, Reply, unverified
from tests.api.harness import Client, Pool


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


class Site:
    """A pool whose host (`number`) listens on loopback. `client`: a session of root, by calls."""

    def __init__(self, pool: Pool, client: Client, folder: Path, number: int = 0, **options: Any) -> None:
        self.pool = pool
        self.client = client
        core = pool.core_of(number)
        self.api = core.api
        self.access = Access(core.api)
        self.handlers = HandlerTable(core.api, self.access)
        self.host = HostConfig(uuid=core.api.host_uuid, name="host", address="127.0.0.1")
        self.socket = folder / f"xapi-{number}"
        self.edge = Edge(
            dispatcher=core.dispatcher,
            authenticator=self.access,
            consoles=ConsoleAccess(core.api),
            handlers=self.handlers,
            facts=FakeFacts(),
            bus=FakeBus(),  # type: ignore[arg-type]
            certificates=Certificates(folder / f"tls-{number}"),
            is_coordinator=lambda host: core.api.is_coordinator,
            limits=Limits(linger=0.3, **options),
        )
        self._connections: list[Connection] = []

    async def start(self) -> None:
        await self.handlers.begin()
        endpoints = [
            Endpoint(self.host.uuid, Kind.PLAIN, self.host.address),
            Endpoint(self.host.uuid, Kind.TLS, self.host.address),
            Endpoint(self.host.uuid, Kind.UNIX, path=str(self.socket)),
        ]
        plain, tls, _ = await self.edge.listen(self.host, endpoints)
        self.port, self.tls_port = plain.port, tls.port

    async def connect(self, kind: Kind = Kind.PLAIN, limit: int = 2**16) -> Connection:
        if kind is Kind.UNIX:
            streams = await asyncio.open_unix_connection(self.socket)
        elif kind is Kind.TLS:
            streams = await asyncio.open_connection(self.host.address, self.tls_port, ssl=unverified())
        else:
            streams = await asyncio.open_connection(self.host.address, self.port, limit=limit)
        connection = Connection(*streams)
        self._connections.append(connection)
        return connection

    # ---- requests

    async def ask(self, method: str, path: str, body: bytes | None = None, headers: str = "", **options: Any) -> Reply:
        """One request of root's session on a connection of its own; the whole reply. `session`: another one's."""
        connection = await self.connect(options.pop("kind", Kind.PLAIN))
        await connection.send(self.request(method, path, body, headers, **options))
        return await connection.reply()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: str = "", session: str | None = None
    ) -> bytes:
        session = self.client.session if session is None else session
        if session:
            path += f"{'&' if '?' in path else '?'}session_id={session}"
        if body is not None:
            headers += f"Content-Length: {len(body)}\r\n"
        return f"{method} {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode() + (body or b"")

    async def task(self, label: str = "task") -> str:
        return str(await self.client.call("task.create", label, ""))

    async def ended(self, task: str) -> Any:
        """The task's row when it has ended."""
        await self.pool.until(lambda: self.pool.row("task", task)["status"] != "pending")
        return self.pool.row("task", task)

    def tasks(self) -> list[str]:
        return list(self.pool.store.rows("task"))

    async def stop(self) -> None:
        for connection in self._connections:
            connection.close()
        await self.edge.close(timeout=1)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    running = await Pool.start(tmp_path, hosts=1)
    yield running
    await running.stop()


@pytest.fixture
async def site(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    running = Site(pool, await pool.login(), tmp_path)
    await running.start()
    yield running
    await running.stop()
