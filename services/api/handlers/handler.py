"""How a handler declares itself, and what it gets: the request's head, a session, a task, the streams of both ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from services.api.api import Api
from services.api.edge.credentials import argument
from services.api.edge.dispatcher import Authenticator, Caller, HttpRefusal
from services.api.edge.exchange import Exchange
from services.api.edge.handlers import Handler
from services.api.edge.stream import Headers, Stream
from shared.contracts.db import Change
from shared.errors import ApiError
from shared.store import Store


@dataclass(slots=True, eq=False)
class Request:
    """`session`: reference, "" for root over the Unix socket and for rows that anybody may use.

    `task`: what it works under, "" for none. `ending`: written with the end of the task when the request succeeds.
    """

    api: Api
    authenticator: Authenticator
    exchange: Exchange
    session: str
    task: str = ""
    ending: list[Change] = field(default_factory=list)

    @property
    def row(self) -> Handler:
        return self.exchange.row

    @property
    def caller(self) -> Caller:
        return self.exchange.caller

    @property
    def stream(self) -> Stream:
        return self.exchange.stream

    @property
    def store(self) -> Store:
        return self.api.store

    @property
    def query(self) -> Mapping[str, str]:
        return self.exchange.head.query()

    def argument(self, name: str) -> str:
        """From the query or a cookie; "" if it is in neither."""
        return self.query.get(name) or self.exchange.head.cookies().get(name, "")

    def flag(self, name: str, default: bool = False) -> bool:
        """Only the literal `true` is true."""
        return self.query[name] == "true" if name in self.query else default

    @property
    def given_task(self) -> str:
        """The task that the client brought."""
        return argument(self.exchange.head, "task_id")

    async def accept(self, headers: Headers) -> None:
        """Begins the reply to an upload: its head says that the body may come, not how it ends."""
        await self.stream.start(headers, told=bool(self.task and self.given_task))

    def named(self, cls: str) -> str:
        """The object that `ref` or `uuid` name. Raises HANDLE_INVALID, UUID_INVALID; `HttpRefusal` 500 without both."""
        query = self.query
        if "ref" in query:
            ref = query["ref"]
            if self.store.row(cls, ref) is None:
                raise ApiError("HANDLE_INVALID", cls, ref)
            return ref
        if "uuid" not in query:
            raise HttpRefusal(500, f"A ref or uuid of a {cls} is needed.")
        found = self.store.ref_of_uuid(cls, query["uuid"])
        if found is None:
            raise ApiError("UUID_INVALID", cls, query["uuid"])
        return found

    def on_coordinator(self) -> None:
        """Sends the client to the coordinator unless this is it. Raises `HttpRefusal` 302."""
        if not self.api.is_coordinator:
            head = self.exchange.head
            target = quote(head.path) + (f"?{head.query_text}" if head.query_text else "")
            raise HttpRefusal(302, location=self.api.https_url(self.api.coordinator_address, target))


Body = Callable[[Request], Awaitable[None]]
Before = Callable[[Request], None]
"""Redirects, or finds fault with the arguments, before a task is adopted."""


@dataclass(frozen=True, slots=True)
class Registered:
    body: Body
    before: Before | None


HANDLERS: dict[str, Registered] = {}
"""By the name of their row."""

REFUSALS: dict[str, Before] = {}
"""What rows that are not built yet find wrong with arguments."""


def handler(name: str, *, before: Before | None = None) -> Callable[[Body], Body]:
    """Registers the function that serves the row of that name."""

    def register(body: Body) -> Body:
        if name in HANDLERS:
            raise ValueError(f"{name} is registered twice")
        HANDLERS[name] = Registered(body, before)
        return body

    return register


def refusal(name: str) -> Callable[[Before], Before]:
    """Registers what looks at the arguments of a row that is not built yet."""

    def register(check: Before) -> Before:
        REFUSALS[name] = check
        return check

    return register


def attachment(filename: str) -> tuple[str, str]:
    """The header by which browsers save a reply under that name."""
    return "content-disposition", f'attachment; filename="{filename}"'


Row = Mapping[str, Any]
