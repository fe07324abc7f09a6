"""Pages beside the API: health, metrics, documentation, the host's web site. FastAPI on uvicorn, one request each.

These requests are rare, so a connection that asks for one is handed to uvicorn as it is and closes afterwards.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from services.api.edge.dispatcher import HttpRefusal
from services.api.edge.exchange import Exchange
from services.api.edge.handlers import HANDLERS, Handler, Missing
from services.api.reference.site import Site

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PAGE_HEADERS = {"content-security-policy": "default-src 'self'", "cache-control": "max-age=3600"}


class Health(msgspec.Struct, frozen=True):
    """`details`: one line per fact, for people."""

    ready: bool
    details: dict[str, str] = {}


class Facts(Protocol):
    """What the pages tell; the service behind the edge knows it."""

    def health(self, host: str) -> Health: ...

    async def metrics(self, host: str) -> str:
        """Prometheus exposition format."""
        ...


class Web:
    """`site`: the folder with the host's web pages. They are served over HTTPS; plain HTTP is refused, or, unless
    `https_only`, sent there.
    """

    def __init__(self, facts: Facts, *, site: Path | None = None, https_only: bool = True) -> None:
        self._site = site
        self._https_only = https_only
        self._state = ServerState()
        self._config = Config(
            _closing(_application(facts, site)),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        self._config.load()

    def serve(self, exchange: Exchange) -> None:
        """Raises `HttpRefusal`."""
        if exchange.row.name == "get_root":
            if not exchange.secure:
                raise _to_https(exchange, self._https_only)
            if self._site is None:
                raise HttpRefusal(404)
        loop = asyncio.get_running_loop()
        exchange.hand_over(_Conversation(exchange, self._config, self._state, loop))

    async def close(self) -> None:
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _to_https(exchange: Exchange, https_only: bool) -> HttpRefusal:
    """What a browser is told that asks for a page over plain HTTP."""
    named = _HOST.fullmatch(exchange.caller.host_header)
    if https_only or named is None:
        return HttpRefusal(403, "Web pages are served over HTTPS only.")
    query = exchange.head.query_text
    target = quote(exchange.head.path) + (f"?{query}" if query else "")
    return HttpRefusal(301, location=f"https://{named[1]}{target}")


_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
"""A `Host` header: name or address, and port."""


class _Conversation(HttpToolsProtocol):
    """Answers also those who close their side once they have asked, which only plain connections can tell apart.

    A client that has not taken the page in time is sent away.
    """

    def __init__(self, exchange: Exchange, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, {"host": exchange.caller.host}, loop)
        self._exchange = exchange
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end = self.loop.call_later(self._exchange.time_limit, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)
        self._exchange.lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        return self.transport.get_extra_info("sslcontext") is None


def _application(facts: Facts, site: Path | None) -> FastAPI:
    app = FastAPI(
        title="XenAPI host: HTTP",
        description="XenAPI calls go by XML-RPC to `/` or by JSON-RPC to `/jsonrpc`; the rest of the paths are here.",
        docs_url=None,
        redoc_url=None,
    )
    reference = Site()

    @app.get("/health", summary="Whether the host's API is ready", response_class=JSONResponse)
    async def health(request: Request) -> JSONResponse:
        found = facts.health(request.state.host)
        status = "ready" if found.ready else "starting"
        return JSONResponse({"status": status, **found.details}, 200 if found.ready else 503)

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse)
    async def metrics(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await facts.metrics(request.state.host), media_type=METRICS_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> RedirectResponse:
        return RedirectResponse("/docs/index.html")

    @app.get("/docs/{path:path}", summary="The XenAPI reference, to read", response_class=Response)
    def reference_page(path: str) -> Response:
        """In a thread: what works is read off the code when the first page is asked for, which takes a second."""
        page = reference.page(path or "index.html")
        if page is None:
            return PlainTextResponse("There is no such page.", 404)
        return Response(page.content, media_type=page.media_type, headers=_PAGE_HEADERS)

    if site is not None:
        app.mount("/", StaticFiles(directory=site, html=True))
    _document(app)
    return app


def _document(app: FastAPI) -> None:
    """Adds the handler table to the OpenAPI description: the edge serves those paths itself."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            paths = described()["paths"]
            for row in HANDLERS:
                # OpenAPI has no CONNECT.
                if row.method != "CONNECT" and row.name != "get_openapi":
                    paths.setdefault(row.path, {}).setdefault(row.method.lower(), _operation(row))
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operation(row: Handler) -> dict[str, Any]:
    alternatives = [group for group in row.required if len(group) > 1]
    description = [f"Needs the role {row.role}." if row.role else "Needs no login."]
    description += [f"One of {', '.join(group)} must be given." for group in alternatives]
    if row.coordinator:
        description.append("On the coordinator only.")
    if isinstance(row.runs, Missing):
        description.append(f"Answered 501: {row.runs.reason}")
    parameters = [(name, len(group) == 1) for group in row.required for name in group]
    parameters += [(name, False) for name in row.optional]
    return {
        "summary": row.summary,
        "description": " ".join(description),
        "operationId": row.name,
        "parameters": [
            {"name": name, "in": "query", "required": required, "schema": {"type": "string"}}
            for name, required in parameters
        ],
        "responses": {"501" if isinstance(row.runs, Missing) else "200": {"description": row.summary}},
    }


def _closing(app: ASGIApp) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The connection ends with the response: the next request on it could be a call, which uvicorn must not see."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await app(scope, receive, send_closing)

    return run
