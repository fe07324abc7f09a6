"""Carrying out an explicit message: take its lock, run its body, write the outcome and give the lock back in one
transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from services.api import locking, tasks
from services.api.call import Call
from services.api.operation import Operation
from shared import trace
from shared.bus.context import CallContext, current
from shared.bus.interface import BusError
from shared.contracts.alerts import ALERT
from shared.contracts.db import Change
from shared.errors import ApiError, internal_error

log = logging.getLogger("api.execute")


class Executor:
    """Runs operations. `background`: asynchronous calls in progress, owned here until they end."""

    def __init__(self, waiters: locking.RowWaiters) -> None:
        self._waiters = waiters
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, call: Call, operation: Operation, arguments: tuple[Any, ...]) -> Any:
        """The operation's result. Raises `ApiError`; anything else that goes wrong becomes INTERNAL_ERROR."""
        token = current.set(_context(call))
        try:
            with trace.span(call.wire, "server"):
                return await self._locked(call, operation, arguments)
        finally:
            current.reset(token)

    async def start(self, call: Call, operation: Operation, arguments: tuple[Any, ...]) -> str:
        """Begins an asynchronous call; its task's reference. Errors from here on are the task's."""
        call.asynchronous = True
        await call.create_task()
        work = asyncio.create_task(self._in_background(call, operation, arguments), name=call.wire)
        self._background.add(work)
        work.add_done_callback(self._background.discard)
        return call.task

    async def _in_background(self, call: Call, operation: Operation, arguments: tuple[Any, ...]) -> None:
        try:
            await self.run(call, operation, arguments)
        except ApiError as error:
            log.info("%s failed: %s", call.wire, error, extra={"task": call.task})

    async def _locked(self, call: Call, operation: Operation, arguments: tuple[Any, ...]) -> Any:
        work = asyncio.create_task(self._work(call, operation, arguments))
        if call.has_task:
            call.api.running[call.task] = work
        try:
            return await work
        except asyncio.CancelledError:
            if not work.cancelled():
                work.cancel()
                raise
            raise ApiError("TASK_CANCELLED", call.task) from None
        finally:
            call.api.running.pop(call.task, None)

    async def _work(self, call: Call, operation: Operation, arguments: tuple[Any, ...]) -> Any:
        lock = operation.lock
        error: ApiError | None = None
        value: Any = None
        held = False
        try:
            if lock is not None:
                await locking.acquire(call, self._waiters, lock, arguments)
                held = True
            outcome = operation.body(call, *arguments)
            value = await outcome if hasattr(outcome, "__await__") else outcome
        except ApiError as problem:
            error = problem
        except asyncio.CancelledError:
            error = ApiError("TASK_CANCELLED", call.task)
        except Exception as problem:
            log.exception("%s failed", call.wire)
            error = internal_error(f"{type(problem).__name__}: {problem}")
        changes: list[Change] = [*call.ending, *(call.on_success if error is None else call.on_failure)]
        if held and lock is not None:
            changes = locking.release(call, lock, arguments, changes)
        changes += tasks.finish(call, call.message.result, value, error)
        await self._conclude(call, changes, error)
        if error is not None:
            raise error
        return value

    async def _conclude(self, call: Call, changes: Sequence[Change], error: ApiError | None) -> None:
        """Writes the outcome; not to be cancelled half-way, since the lock is in it."""
        if changes:
            await asyncio.shield(asyncio.create_task(self._write(call, changes)))
        if error is None:
            for alert in call.alerts:
                await call.api.bus.publish(ALERT, alert, cls=alert.cls, priority=str(alert.priority), name=alert.name)

    async def _write(self, call: Call, changes: Sequence[Change]) -> None:
        """Tries for as long as the database may need to come back: an outcome that is lost leaves a lock behind."""
        for attempt in range(10):
            try:
                await call.api.database.transact(changes)
                return
            except BusError as problem:
                log.warning("the outcome of %s is not written yet: %s", call.wire, problem)
                await asyncio.sleep(min(0.2 * 2**attempt, 5.0))
        raise internal_error(f"the database did not take the outcome of {call.wire}")

    async def close(self) -> None:
        """Ends asynchronous calls: their tasks are marked as failed by the next start."""
        for work in self._background:
            work.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)


def _context(call: Call) -> CallContext:
    row = call.store.row("session", call.session) if call.session else None
    return msgspec.structs.replace(
        current.get(),
        task=call.task if call.has_task else "",
        session=call.session,
        user=str(row["auth_user_name"]) if row is not None else "",
        term=call.store.term,
    )
