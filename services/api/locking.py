"""Taking and giving back `current_operations`, the locks of the API.

A lock is taken by a transaction whose precondition is the row the decision was made on. What is in the way of a call
makes it wait, as upstream does, until the other operation ends or the policy's time is over; everything else refuses at
once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from services.api.allowed import CHECKS, published
from services.api.api import Api
from services.api.call import Call
from services.api.operation import Lock
from shared.contracts.db import Change, Delete, Delta, MapDrop, MapPut, Precondition, Unchanged
from shared.contracts.task import CANCEL, Cancel
from shared.errors import ApiError
from shared.store import Store, Touched

log = logging.getLogger("api.locking")

_RECHECK = 20.0
"""Seconds after which a waiting call looks again even if it saw no change."""


class RowWaiters:
    """Wakes calls that wait for a row to change."""

    def __init__(self, api: Api) -> None:
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        api.replica.watch(self._on_commit)

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        for item in touched:
            for event in self._waiting.get((item.cls, item.ref), ()):
                event.set()

    async def changed(self, cls: str, ref: str, timeout: float) -> None:
        """Until the row changes or `timeout` seconds have passed."""
        event = asyncio.Event()
        events = self._waiting.setdefault((cls, ref), set())
        events.add(event)
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            return
        finally:
            events.discard(event)
            if not events:
                self._waiting.pop((cls, ref), None)


async def acquire(call: Call, waiters: RowWaiters, lock: Lock, arguments: tuple[Any, ...]) -> None:
    """Takes the lock and what goes with it. Raises the check's refusal, or whatever `reserve` raises."""
    ref = arguments[lock.argument]
    if call.store.row(lock.cls, ref) is None:
        raise ApiError("HANDLE_INVALID", lock.cls, ref)
    if lock.interrupts:
        await _interrupt(call, waiters, lock, ref)

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        refusal = CHECKS[lock.cls](store, ref, lock.operation)
        if refusal is not None:
            raise refusal
        taken: list[Change] = [
            MapPut(cls=lock.cls, ref=ref, field="current_operations", key=call.task, value=lock.operation)
        ]
        if lock.reserve is not None:
            taken += lock.reserve(call, store, arguments)
        taken += published(store, lock.cls, ref, taken)
        row = store.find(lock.cls, ref)
        given = [Unchanged(cls=lock.cls, ref=ref, generation=row.modified)] if row is not None else []
        return [*call.task_row(), *taken], given, None

    deadline = time.monotonic() + lock.policy.value
    while True:
        try:
            await call.api.database.decide(decision)
            call.task_exists = call.task_exists or call.has_task
            return
        except ApiError as error:
            if lock.reserve is not None:
                call.api.placement.withdraw(ref)
            left = deadline - time.monotonic()
            if error.code != "OTHER_OPERATION_IN_PROGRESS" or left <= 0:
                raise
            await waiters.changed(lock.cls, ref, min(left, _RECHECK))


async def _interrupt(call: Call, waiters: RowWaiters, lock: Lock, ref: str) -> None:
    """Cancels the operations that this one overrides, and waits until they have ended."""
    deadline = time.monotonic() + lock.policy.value
    while time.monotonic() < deadline:
        row = call.store.row(lock.cls, ref)
        operations = row["current_operations"] if row is not None else {}
        tasks = [task for task, operation in operations.items() if operation in lock.interrupts]
        if not tasks:
            return
        for task in tasks:
            await cancel_task(call.api, task)
        await waiters.changed(lock.cls, ref, _RECHECK)


async def cancel_task(api: Api, task: str) -> None:
    """Asks whoever works for the task to stop: here at once, elsewhere over the bus."""
    running = api.running.get(task)
    if running is not None:
        running.cancel()
    await api.bus.publish(CANCEL, Cancel(task=task), task=task)


def release(call: Call, lock: Lock, arguments: tuple[Any, ...], changes: Sequence[Change]) -> list[Change]:
    """What gives the lock back, together with the outcome's `changes`."""
    ref = arguments[lock.argument]
    row = call.store.row(lock.cls, ref)
    if row is None or any(
        change.cls == lock.cls and change.ref == ref and isinstance(change, Delete) for change in changes
    ):
        return list(changes)
    given_back: Change = MapDrop(cls=lock.cls, ref=ref, field="current_operations", key=call.task)
    everything = [*changes, given_back]
    return [*everything, *published(call.store, lock.cls, ref, everything)]


def orphans(store: Store, running: Iterable[str]) -> list[Change]:
    """Locks whose task nobody carries out any more: left by an API process that was killed."""
    alive = set(running)
    changes: list[Change] = []
    for cls, table in store.tables.items():
        if "current_operations" not in table.cls.fields or cls == "task":
            continue
        for ref, row in table.rows.items():
            for task in row.fields["current_operations"]:
                if task not in alive:
                    changes.append(MapDrop(cls=cls, ref=ref, field="current_operations", key=task))
    return changes
