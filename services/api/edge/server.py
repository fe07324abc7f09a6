"""The edge as a whole: opens the listeners, serves what is not a call, and stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from services.api.edge import cli, console
from services.api.edge.client_trust import ClientTrust, ListenerContext
from services.api.edge.connection import Connection
from services.api.edge.credentials import credential
from services.api.edge.dispatcher import (
    Authenticator,
    Caller,
    Consoles,
    Credential,
    Dispatcher,
    Handlers,
    HttpRefusal,
)
from services.api.edge.endpoint import Endpoint, Kind, Limits
from services.api.edge.exchange import Exchange
from services.api.edge.handlers import TAKEN, Handler, Missing, Router, Runs
from services.api.edge.handshakes import Handshakes
from services.api.edge.listeners import listen
from services.api.edge.peer import Network, networks
from services.api.edge.statistics import Statistics
from services.api.edge.tls import Certificates
from services.api.edge.web import Facts, Web
from shared.bus.interface import Bus
from shared.config import ConfigError, HostConfig
from shared.errors import ApiError, internal_error

log = logging.getLogger("edge")


class Edge:
    """All listeners of the process, for one host or many.

    `is_coordinator`: whether that host (uuid) is the pool's coordinator now; members lack a few paths. `proxies`:
    networks that are believed about whom they speak for (`peer`). `trust`: which clients' certificates count. `turn`:
    what a request that is no call has to wait for.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        authenticator: Authenticator,
        consoles: Consoles,
        handlers: Handlers,
        facts: Facts,
        bus: Bus,
        certificates: Certificates,
        is_coordinator: Callable[[str], bool],
        site: Path | None = None,
        https_only: bool = True,
        proxies: str = "",
        limits: Limits | None = None,
        turn: Callable[[Caller], Awaitable[None] | None] = lambda caller: None,
    ) -> None:
        self.limits = limits or Limits()
        self._turn = turn
        self.statistics = Statistics()
        self.handshakes = Handshakes(self.limits.handshakes, self.statistics)
        self.dispatcher = dispatcher
        self.connections: set[Connection] = set()
        self.certificates = certificates
        self.trust: ClientTrust | None = None
        try:
            self.proxies: Sequence[Network] = networks(proxies)
        except ValueError as error:
            raise ConfigError(f"option proxies: {error}") from None
        self._authenticator = authenticator
        self._consoles = consoles
        self._handlers = handlers
        self._bus = bus
        self._web = Web(facts, site=site, https_only=https_only)
        self._is_coordinator = is_coordinator
        self._routers = {coordinator: Router(coordinator=coordinator) for coordinator in (True, False)}
        self._servers: list[asyncio.AbstractServer] = []
        self._plain: dict[str, dict[Endpoint, asyncio.AbstractServer | None]] = {}
        """Host to its ports for plain HTTP; None while they are closed."""
        self._sockets: list[Path] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(
        self, host: HostConfig, endpoints: Sequence[Endpoint], *, https_only: bool = False
    ) -> list[Endpoint]:
        """Serves the endpoints of that host; gives them back with the ports that were chosen for 0. With `https_only`
        those for plain HTTP stay closed for now.

        Raises `ListenError`, or `ConfigError` for a certificate that cannot be used.
        """
        _allow_open_files(self.limits.connections)
        opened = []
        for endpoint in endpoints:
            if endpoint.kind is Kind.PLAIN and https_only:
                self._plain.setdefault(host.uuid, {})[endpoint] = None
                continue
            context = self._context(host) if endpoint.kind is Kind.TLS else None
            server = await listen(endpoint, lambda at=endpoint: Connection(self, at), context)  # type: ignore[misc]
            self._servers.append(server)
            if endpoint.kind is Kind.UNIX:
                self._sockets.append(Path(endpoint.path))
            else:
                port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
                endpoint = Endpoint(endpoint.host, endpoint.kind, endpoint.address, port)
            if endpoint.kind is Kind.PLAIN:
                self._plain.setdefault(host.uuid, {})[endpoint] = server
            log.info("%s listens for %s on %s", host.name, endpoint.kind.value, endpoint.path or _address(endpoint))
            opened.append(endpoint)
        return opened

    async def https_only(self, host: str, value: bool) -> None:
        """Closes that host's ports for plain HTTP, or opens them again; calls in progress are answered. Raises
        `ListenError`.
        """
        for endpoint, server in self._plain.get(host, {}).items():
            if value and server is not None:
                self._plain[host][endpoint] = None
                self._servers.remove(server)
                server.close()
                for connection in list(self.connections):
                    if connection.endpoint.host == host and connection.endpoint.kind is Kind.PLAIN:
                        connection.stop()
            elif not value and server is None:
                opened = await listen(endpoint, lambda at=endpoint: Connection(self, at), None)  # type: ignore[misc]
                self._plain[host][endpoint] = opened
                self._servers.append(opened)

    def _context(self, host: HostConfig) -> ListenerContext:
        return ListenerContext.of(lambda: self.certificates.context(host), self.handshakes)

    def trust_clients(self, trust: ClientTrust | None) -> None:
        """From now on these certificates count, or none. Connections whose certificate counted before end.

        Raises `ConfigError` for authorities that cannot be used; then nothing has changed.
        """
        self.certificates.trust(trust)
        self.trust = trust
        for connection in list(self.connections):
            if connection.peer.certificate:
                connection.stop()

    async def close(self, timeout: float = 5.0) -> None:
        """Stops listening, lets calls in progress finish for `timeout` seconds, then ends everything."""
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._web.close()
        for connection in list(self.connections):
            connection.abort()
        for server in self._servers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await server.wait_closed()
        for path in self._sockets:
            path.unlink(missing_ok=True)

    # ---- what connections need

    def router(self, host: str) -> Router:
        return self._routers[self._is_coordinator(host)]

    def make_room(self) -> bool:
        """Those heard of least recently go, a hundredth of all at once: looking at all of them is not for free."""
        idle = [(since, number, one) for number, one in enumerate(self.connections) if (since := one.idle_since)]
        for _, _, connection in heapq.nsmallest(max(1, self.limits.connections // 100), idle):
            connection.give_way()
        return bool(idle)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def serve(self, exchange: Exchange) -> None:
        row = exchange.row
        turn = self._turn(exchange.caller) if row.runs is not Runs.CLI else None  # commands make calls that wait
        if turn is not None:
            await turn
        if row.runs is Runs.WEB:
            self._web.serve(exchange)
        elif row.runs is Runs.CLI:
            self.statistics.commands += 1
            await cli.serve(exchange, self._bus)
        elif not row.role:
            await self._run(exchange, "")
        else:
            await self._serve_restricted(exchange, row)

    async def _serve_restricted(self, exchange: Exchange, row: Handler) -> None:
        caller = exchange.caller
        found = credential(exchange.head, trusted=caller.trusted, certificate=caller.certificate)
        if found is None or (row.role == "local root" and not exchange.caller.trusted):
            raise HttpRefusal(401)
        async with self._session(exchange, found) as session:
            await self._run(exchange, session)

    @contextlib.asynccontextmanager
    async def _session(self, exchange: Exchange, found: Credential) -> AsyncIterator[str]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                entered = self._authenticator.session(exchange.caller, found, exchange.row.permission)
                session = await stack.enter_async_context(entered)
            except ApiError as error:
                if error.code == "RBAC_PERMISSION_DENIED":
                    await self._handlers.forbidden(exchange, found, error)
                raise
            yield session

    async def _run(self, exchange: Exchange, session: str) -> None:
        runs = exchange.row.runs
        if runs is Runs.CONSOLE:
            self.statistics.consoles += 1
            await console.serve(exchange, self._consoles, session)
        elif runs is Runs.CONSOLE_WEBSOCKET:
            self.statistics.consoles += 1
            await console.serve_websocket(exchange, self._consoles, session)
        else:
            try:
                self._check(exchange)
            except (HttpRefusal, ApiError) as error:
                await self._handlers.failed(exchange, session, error)
                raise
            await self._handlers.serve(exchange, session)

    def _check(self, exchange: Exchange) -> None:
        """What the table says against the request. Raises `HttpRefusal` or `ApiError`."""
        row, query = exchange.row, exchange.head.query()
        for group in row.required:
            if all(name not in query for name in group):
                error = internal_error(f"{row.name} needs the argument {' or '.join(group)}")
                raise HttpRefusal(400, bare=True, error=error)
        coding = exchange.head.headers.get("transfer-encoding", "").lower()
        if coding and row.chunked != TAKEN:
            raise HttpRefusal(row.chunked, "Chunked bodies are not supported here.", error=_CHUNKED.get(row.chunked))
        if coding and coding != "chunked":
            raise HttpRefusal(501, "Bodies may be chunked, and not be encoded otherwise.")
        if isinstance(row.runs, Missing):
            self._handlers.refuse(exchange)
            raise HttpRefusal(501, row.runs.reason, error=ApiError("NOT_IMPLEMENTED", row.permission))


_CHUNKED = dict.fromkeys((403, 404), ApiError("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"))
"""The error for a task: those two statuses are those of imports."""


def _address(endpoint: Endpoint) -> str:
    return f"{endpoint.address} port {endpoint.port}"


def _allow_open_files(connections: int) -> None:
    """Raises the soft limit as far as it may go: every client that waits for events holds a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
