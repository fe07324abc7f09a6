"""Carrying out an explicit message: take its lock, run its body, write the outcome and give the lock back in one
transaction.

A call that has begun ends exactly once, whatever cancels it: from the moment its outcome is known, undoing, writing and
giving back are no longer to be interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from services.api import locking, roles, tasks
from services.api.audit.calls import Noted
from services.api.call import Call
from services.api.decisions.liveness import require_live
from services.api.host_errors import with_refs
from services.api.on_hosts import named_host
from services.api.operation import Operation
from services.api.patience import ATTEMPTS, may_pass, pause
from shared import alerts, trace
from shared.bus.context import CallContext, current
from shared.bus.interface import BusError
from shared.contracts.db import Change, Create
from shared.errors import ApiError, DatabaseConflict, internal_error

log = logging.getLogger("api.execute")

PATIENCE = 10.0
"""Seconds that a client whose call has failed waits for the end of what there is to clean up."""

WRITE_PATIENCE = 30.0
"""Seconds that a client whose call was carried out waits for that to be written: a database that is started again
takes a few, one whose disk is full may take for ever.
"""

CLOSING_TIME = 5.0
"""Seconds that calls which are cancelled because the service stops get for writing their outcome."""


class Executor:
    """Runs operations. `background`: asynchronous calls in progress, owned here until they end."""

    def __init__(self) -> None:
        self._background: set[asyncio.Task[None]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._closing = False

    async def run(self, call: Call, operation: Operation, arguments: tuple[Any, ...]) -> Any:
        """The operation's result. Raises `ApiError`; anything else that goes wrong becomes INTERNAL_ERROR."""
        noted = Noted(call, arguments)
        value: Any = None
        error: ApiError | None = ApiError("TASK_CANCELLED", call.task)
        token, begun = current.set(_context(call)), time.monotonic()
        try:
            attributes = call.api.observers.attributes() if current.get().observed else {}
            with trace.span(call.wire, "server", **attributes):
                value = await self._carry_out(call, operation, arguments)
            error = None
            return value
        except ApiError as problem:
            error = problem
            raise
        finally:
            current.reset(token)
            call.api.timings.note(call.message.wire_name, time.monotonic() - begun)
            noted.ended(value, error)

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

    async def _carry_out(self, call: Call, operation: Operation, arguments: tuple[Any, ...]) -> Any:
        """The body is an asyncio task of its own, which `task.cancel` finds under the call's task."""
        error: ApiError | None = None
        value: Any = None
        work = asyncio.create_task(self._begin(call, operation, arguments))
        call.work = work
        call.api.running.begin(call.task, work)
        try:
            value = await work
        except ApiError as problem:
            error = problem
            # A cancelled write, as one without an answer, may have been made nevertheless.
            call.in_doubt = isinstance(problem, BusError) or problem.code == "TASK_CANCELLED"
        except asyncio.CancelledError:
            error, call.in_doubt = ApiError("TASK_CANCELLED", call.task), True
        except Exception as problem:
            error, call.in_doubt = _unexpected(call, problem), True
        if error is not None:
            error = with_refs(call.store, error)
        if operation.lock is None and not call.leaves_something:
            self._over(call)
        else:
            ending = asyncio.create_task(self._end(call, operation, arguments, value, error), name=f"end {call.wire}")
            self._endings.add(ending)
            ending.add_done_callback(lambda done: self._ended(call, done))
            await _to_its_end(ending, error)
        if error is not None:
            raise error
        return value

    async def _begin(self, call: Call, operation: Operation, arguments: tuple[Any, ...]) -> Any:
        if call.turn is not None:
            await call.turn
        if call.asynchronous:
            roles.check(call.api, call.session, call.message, arguments)
        if operation.forwarded:
            require_live(call.store, named_host(call, arguments))
        if operation.lock is not None:
            await locking.acquire(call, operation.lock, arguments)
        outcome = operation.body(call, *arguments)
        return await outcome if hasattr(outcome, "__await__") else outcome

    def _ended(self, call: Call, ending: asyncio.Task[None]) -> None:
        self._endings.discard(ending)
        self._over(call)
        if not ending.cancelled() and ending.exception() is not None:
            log.error("the end of %s failed: %s", call.wire, ending.exception(), extra={"task": call.task})

    def _over(self, call: Call) -> None:
        if call.work is not None:
            call.api.running.end(call.task, call.work)
        call.api.disks.ended(call.task)
        call.api.role.ended(call.task)

    # ---- the end of a call

    async def _end(
        self, call: Call, operation: Operation, arguments: tuple[Any, ...], value: Any, error: ApiError | None
    ) -> None:
        """Undoes what was done if it failed, writes the outcome, gives back the lock, tells people."""
        # What is done from here on is not work for the task: whoever cancels the task must not stop it.
        context = current.get()
        current.set(msgspec.structs.replace(context, task="", origin=context.task or context.origin, deadline=None))
        if error is None:
            try:
                await self._write(call, lambda: self._outcome(call, operation, arguments, value, None))
            except Exception as problem:
                failed = problem if isinstance(problem, ApiError) else _unexpected(call, problem)
                await self._fail(call, operation, arguments, failed)
                raise failed from problem
            for note in call.written:
                note()
            await _tell(call)
        else:
            await self._fail(call, operation, arguments, error)

    async def _fail(self, call: Call, operation: Operation, arguments: tuple[Any, ...], error: ApiError) -> None:
        await self._undo(call)
        if call.in_doubt:
            await self._find_out(call)
        await self._write(call, lambda: self._outcome(call, operation, arguments, None, error))

    def _outcome(
        self, call: Call, operation: Operation, arguments: tuple[Any, ...], value: Any, error: ApiError | None
    ) -> list[Change]:
        changes = [*call.ending, *(call.on_success if error is None else call.on_failure)]
        lock = operation.lock
        if lock is not None:
            held = locking.held(call)
            changes = locking.release(call, changes) if held else []
        else:
            changes = locking.allowing(call, changes)
        return changes + tasks.finish(call, call.message.result, value, error)

    async def _undo(self, call: Call) -> None:
        while call.undo:
            step = call.undo.pop()
            try:
                await self._undo_step(call, step)
            except Exception as problem:  # the rest has to be undone all the same
                log.error("%s failed and could not be undone", call.wire, exc_info=problem, extra={"task": call.task})

    async def _undo_step(self, call: Call, step: Callable[[], Awaitable[None]]) -> None:
        """A service that is away now, perhaps the very reason of the failure, gets the time to come back."""
        for number in range(ATTEMPTS):
            try:
                await step()
                return
            except BusError as problem:
                if self._closing or number == ATTEMPTS - 1:
                    raise
                log.warning("%s is not undone yet: %s", call.wire, problem, extra={"task": call.task})
            await asyncio.sleep(pause(number))

    async def _find_out(self, call: Call) -> None:
        """After this the replica shows everything that this call's unanswered writes came to: the database takes
        requests in order.
        """
        await self._persist(call, lambda: call.api.database.transact([]))

    async def _write(self, call: Call, changes: Callable[[], list[Change]]) -> None:
        gone: set[tuple[str, str]] = set()

        async def attempt() -> None:
            while True:
                wanted = [change for change in changes() if (change.cls, change.ref) not in gone]
                if not wanted:
                    return
                try:
                    async with call.api.turns.of(call.locks if call.locked else call):
                        await call.api.database.transact(wanted)
                    return
                except DatabaseConflict as conflict:
                    if any(isinstance(change, Create) and change.ref == conflict.params[2] for change in wanted):
                        return  # an earlier attempt, which got no answer, has written it
                    raise
                except ApiError as problem:
                    row = (problem.params[0], problem.params[1]) if problem.code == "HANDLE_INVALID" else None
                    if row is None or not any((change.cls, change.ref) == row for change in wanted):
                        raise
                    gone.add(row)  # somebody has removed it meanwhile; the rest still has to be written

        await self._persist(call, attempt)

    async def _persist(self, call: Call, attempt: Callable[[], Awaitable[Any]]) -> None:
        """Tries for as long as the database may need to come back. Raises what went wrong last."""
        for number in range(ATTEMPTS):
            try:
                await attempt()
                return
            except ApiError as problem:
                if not may_pass(problem) or self._closing or number == ATTEMPTS - 1:
                    log.error("the outcome of %s is not written: %s", call.wire, problem, extra={"task": call.task})
                    raise
                log.warning("the outcome of %s is not written yet: %s", call.wire, problem)
            await asyncio.sleep(pause(number))

    async def close(self) -> None:
        """Ends calls in progress; a call whose outcome cannot be written now is settled by the next start."""
        self._closing = True
        for work in self._background:
            work.cancel()
        if self._background or self._endings:
            await asyncio.wait([*self._background, *self._endings], timeout=CLOSING_TIME)
        left = [*self._endings, *self._background]
        for ending in left:
            ending.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _to_its_end(ending: asyncio.Task[None], error: ApiError | None) -> None:
    """Waits for it even when cancelled: the call has ended, only that is not written yet.

    Nobody is kept waiting long for a database that is away; the end goes on without its client.
    """
    deadline = time.monotonic() + (PATIENCE if error is not None else WRITE_PATIENCE)
    while not ending.done() and (left := deadline - time.monotonic()) > 0:
        try:
            await asyncio.wait({ending}, timeout=left)
        except asyncio.CancelledError:
            continue
    if error is not None:
        return
    if not ending.done():
        raise internal_error("it was carried out, but the database does not take its outcome; that is tried again")
    if ending.cancelled():
        raise internal_error("the service stopped before the outcome was written")
    ending.result()


async def _tell(call: Call) -> None:
    """People, who are not told where the bus is away: the call has succeeded all the same."""
    for alert in call.alerts:
        try:
            await alerts.publish(call.api.bus, alert)
        except BusError as error:
            log.warning("nobody hears of %s: %s", alert.name, error, extra={"task": call.task})


def _unexpected(call: Call, problem: Exception) -> ApiError:
    log.error("%s failed", call.wire, exc_info=problem, extra={"task": call.task})
    return internal_error(f"{type(problem).__name__}: {problem}")


def _context(call: Call) -> CallContext:
    row = call.store.row("session", call.session) if call.session else None
    return msgspec.structs.replace(
        current.get(),
        task=call.task if call.has_task else "",
        session=call.session,
        call=call.message.wire_name,
        user=str(row["auth_user_name"]) if row is not None else "",
    )
