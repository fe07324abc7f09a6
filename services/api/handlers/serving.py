"""Runs a handler for one request: its task taken over, the handler at work, the task told how it ended."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from services.api import handlers
from services.api.api import Api
from services.api.edge.credentials import argument
from services.api.edge.dispatcher import Authenticator, Basic, Credential, HttpRefusal, Session
from services.api.edge.exchange import Exchange
from services.api.edge.stream import ClientGone
from services.api.handlers import disk_streams, tasks
from services.api.handlers.handler import HANDLERS, REFUSALS, Registered, Request
from shared.bus.context import current
from shared.contracts.task import CANCEL, Cancel
from shared.errors import ApiError, internal_error

log = logging.getLogger("api.handlers")


class HandlerTable:
    """The `Handlers` of the edge."""

    def __init__(self, api: Api, authenticator: Authenticator) -> None:
        self._api = api
        self._authenticator = authenticator
        handlers.load()

    async def begin(self) -> None:
        """Ends what an earlier process has left, and hears of tasks that are cancelled elsewhere."""
        await tasks.abandon(self._api)
        await disk_streams.abandon(self._api)
        if not self._api.is_coordinator:  # which cancels what runs in its own process itself
            await self._api.bus.subscribe(CANCEL, self._on_cancel)

    def _on_cancel(self, cancel: Cancel, _: str) -> None:
        self._api.running.cancel(cancel.task)

    # ---- what the edge asks for

    async def serve(self, exchange: Exchange, session: str) -> None:
        request = Request(self._api, self._authenticator, exchange, session)
        registered = HANDLERS[exchange.row.name]
        try:
            if registered.before is not None:
                registered.before(request)
        except (HttpRefusal, ApiError) as error:
            await self.failed(exchange, session, error)
            raise
        await self._adopted(request, registered)

    def refuse(self, exchange: Exchange) -> None:
        check = REFUSALS.get(exchange.row.name)
        if check is not None:
            check(Request(self._api, self._authenticator, exchange, ""))

    async def failed(self, exchange: Exchange, session: str, error: HttpRefusal | ApiError) -> None:
        task = argument(exchange.head, "task_id")
        if task and not (isinstance(error, HttpRefusal) and error.status in (302, 401)):
            await tasks.fail_given(self._api, session, task, _api_error(error))

    async def forbidden(self, exchange: Exchange, credential: Credential, error: ApiError) -> None:
        task = argument(exchange.head, "task_id")
        row = self._api.store.row("task", task) if task else None
        if row is None:
            return
        if isinstance(credential, Session):
            await tasks.fail_given(self._api, credential.ref, task, error)
        elif isinstance(credential, Basic):
            # Its own session is over; the password was right, so the task of a session of that name is its own.
            owner = self._api.store.row("session", row["session"])
            if owner is not None and owner["auth_user_name"] == credential.user:
                await tasks.fail_given(self._api, row["session"], task, error)

    # ---- one request

    async def _adopted(self, request: Request, registered: Registered) -> None:
        """Whatever happens, the task is told. What `task.cancel` cancels is this asyncio task."""
        problem: Exception | None = None
        this = asyncio.current_task()
        assert this is not None
        try:
            await tasks.adopt(request)
            await self._work(request, registered)
        except asyncio.CancelledError:
            this.uncancel()
            problem = ApiError("TASK_CANCELLED", request.task)
        except Exception as error:
            problem = error
        finally:
            self._api.running.end(request.task, this)
        await self._end(request, problem)
        if problem is not None:
            raise problem

    async def _end(self, request: Request, problem: Exception | None) -> None:
        """Raises what keeps a success from being written."""
        if problem is None:
            try:
                await tasks.end(request, None)
            except ApiError as unwritten:
                await tasks.end(request, unwritten)
                raise
            return
        failure = _api_error(problem)
        if request.given_task and not request.task:
            await self.failed(request.exchange, request.session, failure)
        else:
            await tasks.end(request, failure)

    async def _work(self, request: Request, registered: Registered) -> None:
        this = asyncio.current_task()
        assert this is not None
        if request.task:
            self._api.running.begin(request.task, this)
        row = request.store.row("session", request.session)
        user = str(row["auth_user_name"]) if row is not None else ""
        context = msgspec.structs.replace(
            current.get(),
            task=request.task,
            session=request.session,
            user=user,
            call=f"{request.row.method} {request.row.path}",
        )
        token = current.set(context)
        try:
            await registered.body(request)
        except ApiError as error:
            log.warning("%s %s has failed: %s", request.row.method, request.row.path, error)
            raise
        finally:
            current.reset(token)


def _api_error(problem: Exception) -> ApiError:
    """What a task says of it."""
    if isinstance(problem, ApiError):
        return problem
    if isinstance(problem, HttpRefusal):
        return problem.error
    if not isinstance(problem, ClientGone):
        log.error("an HTTP handler failed", exc_info=problem)
    return internal_error(f"{type(problem).__name__}: {problem}")
