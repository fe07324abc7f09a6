from __future__ import annotations

import asyncio
import functools
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from services.api.edge.endpoint import Endpoint, Kind, Limits
from services.api.edge.server import Edge
from services.api.edge.tls import Certificates
from shared.config import HostConfig
from tests.api.edge.fakes import (
    Client,
    FakeAuthenticator,
    FakeBus,
    FakeConsoles,
    FakeDispatcher,
    FakeFacts,
    FakeHandlers,
    unverified,
)

HOST = HostConfig(uuid="host-1", name="host1", address="127.0.0.1")


@functools.cache
def _made_once() -> dict[str, bytes]:
    """What a host's folder of certificates holds: making the key takes half a second."""
    with tempfile.TemporaryDirectory() as folder:
        Certificates(Path(folder)).context(HOST)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def certificates(folder: Path) -> Certificates:
    made = Certificates(folder)
    for name, content in _made_once().items():
        (folder / name).write_bytes(content)
    return made


class Running:
    """An edge on loopback with all three kinds of listener, and what stands behind it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.dispatcher = FakeDispatcher()
        self.authenticator = FakeAuthenticator()
        self.consoles = FakeConsoles()
        self.handlers = FakeHandlers()
        self.facts = FakeFacts()
        self.bus = FakeBus()
        self.socket = folder / "xapi"
        self.coordinator = True
        self.edge = Edge(
            dispatcher=self.dispatcher,
            authenticator=self.authenticator,
            consoles=self.consoles,
            handlers=self.handlers,
            facts=self.facts,
            bus=self.bus,  # type: ignore[arg-type]
            certificates=certificates(folder / "tls"),
            is_coordinator=lambda host: self.coordinator,
            **options,
        )
        self._clients: list[Client] = []

    async def start(self) -> None:
        endpoints = [
            Endpoint(HOST.uuid, Kind.PLAIN, HOST.address),
            Endpoint(HOST.uuid, Kind.TLS, HOST.address),
            Endpoint(HOST.uuid, Kind.UNIX, path=str(self.socket)),
        ]
        plain, tls, _ = await self.edge.listen(HOST, endpoints)
        self.port, self.tls_port = plain.port, tls.port

    async def client(self, kind: Kind = Kind.PLAIN, context: ssl.SSLContext | None = None) -> Client:
        if kind is Kind.UNIX:
            streams = await asyncio.open_unix_connection(self.socket)
        elif kind is Kind.TLS:
            streams = await asyncio.open_connection(HOST.address, self.tls_port, ssl=context or unverified())
        else:
            streams = await asyncio.open_connection(HOST.address, self.port)
        client = Client(*streams)
        self._clients.append(client)
        return client

    async def until(self, holds: Callable[[], bool]) -> None:
        """For what happens to sockets: there is no event to wait for."""
        async with asyncio.timeout(30):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def stop(self) -> None:
        for client in self._clients:
            client.close()
        await self.edge.close(timeout=1)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the real service: its transports differ from asyncio's in the corners."""
    return {"uvloop": uvloop.new_event_loop}


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts edges with options of one's own; they stop with the test."""
    started: list[Running] = []

    async def begin(**options: Any) -> Running:
        running = Running(tmp_path, **options)
        started.append(running)
        await running.start()
        return running

    yield begin
    for running in started:
        await running.stop()


@pytest.fixture
async def edge(start: Start) -> Running:
    return await start()


@pytest.fixture
async def quick(start: Start) -> Running:
    """With time limits that a test can wait for."""
    return await start(limits=Limits(first_read=0.15, first_total=0.4, stall=0.2, linger=0.2))
