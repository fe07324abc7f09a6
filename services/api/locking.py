"""Taking and giving back `current_operations`, the locks of the API.

A lock is taken by a transaction whose precondition is the row the decision was made on. What is in the way of a call
makes it wait, as upstream does, until the other operation ends or the policy's time is over; everything else refuses at
once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Any

from services.api.allowed import CHECKS, published
from services.api.api import Api
from services.api.call import Call
from services.api.operation import Lock, Policy
from services.api.row_waiters import wait
from shared.contracts.db import Change, Delete, MapDrop, MapPut, Precondition, Unchanged, Update
from shared.contracts.task import CANCEL, Cancel
from shared.errors import ApiError
from shared.store import NULL, Store

log = logging.getLogger("api.locking")

Decision = Callable[[Store], Sequence[Change]]

_RECHECK = 20.0
"""Seconds after which a waiting call looks again even if it saw no change."""


async def acquire(call: Call, lock: Lock, arguments: tuple[Any, ...]) -> None:
    """Takes the lock and what goes with it. Raises the check's refusal, or whatever `reserve` raises.

    When it is cancelled, or the database does not answer, the lock may be taken all the same (`held`).
    """
    ref = _locked(call.store, lock, arguments)
    if call.store.row(lock.cls, ref) is None:
        raise ApiError("HANDLE_INVALID", lock.cls, ref)
    call.locks = (lock.cls, ref)
    if lock.interrupts:
        await _interrupt(call, lock, ref)

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        refusal = lock.refuse(store, arguments) if lock.refuse is not None else None
        refusal = refusal or CHECKS[lock.cls](store, ref, lock.operation)
        if refusal is not None:
            raise refusal
        taken: list[Change] = [
            MapPut(cls=lock.cls, ref=ref, field="current_operations", key=call.task, value=lock.operation)
        ]
        if lock.reserve is not None:
            taken += lock.reserve(call, store, arguments)
        taken += published(store, lock.cls, ref, taken)
        return [*call.task_row(), *taken], _unchanged(store, lock.cls, ref), None

    async def attempt() -> None:
        try:
            async with call.api.turns.of((lock.cls, ref)):
                await call.api.database.decide(decision)
        except BaseException:
            if lock.reserve is not None:
                call.api.placement.withdraw(ref)
            raise

    await _when_free(call.api, attempt, lock.policy)
    call.locked = True
    call.task_exists = call.task_exists or call.has_task


def _locked(store: Store, lock: Lock, arguments: tuple[Any, ...]) -> str:
    """Reference of what is locked."""
    if lock.argument is not None:
        return str(arguments[lock.argument])
    return next(iter(store.rows(lock.cls)), NULL)


async def wait_until_allowed(call: Call, cls: str, ref: str, operation: str) -> None:
    """For work on an object that many may do at once: no lock is taken, but it waits for whoever has one. Raises the
    check's refusal.
    """

    async def attempt() -> None:
        refusal = CHECKS[cls](call.store, ref, operation)
        if refusal is not None:
            raise refusal

    await _when_free(call.api, attempt, Policy.STANDARD)


async def decide(call: Call, cls: str, ref: str, decision: Decision, policy: Policy = Policy.FAIL_IMMEDIATELY) -> None:
    """Writes what the decision says about an object and what belongs to it, on rows that nobody changes meanwhile.

    The decision raises its refusal; while the object is busy it is made again as the policy says.
    """

    def with_facts(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        changes = decision(store)
        return [*call.task_row(), *changes], _unchanged(store, cls, ref), None

    async def attempt() -> None:
        async with call.api.turns.of((cls, ref)):
            await call.api.database.decide(with_facts)

    await _when_free(call.api, attempt, policy)
    call.task_exists = call.task_exists or call.has_task


async def _when_free(api: Api, attempt: Callable[[], Awaitable[None]], policy: Policy) -> None:
    """Tries again whenever the object that was busy changes, until the policy's time is over."""
    deadline = time.monotonic() + policy.value
    while True:
        try:
            await attempt()
            return
        except ApiError as error:
            left = deadline - time.monotonic()
            if error.code != "OTHER_OPERATION_IN_PROGRESS" or left <= 0:
                raise
            await api.waiters.changed(error.params[0], error.params[1], min(left, _RECHECK))


def _unchanged(store: Store, cls: str, ref: str) -> list[Precondition]:
    """The row, and those whose operations would have refused this one: two decisions that look at each other's rows
    must not both come true.
    """
    facts = {(cls, ref): None}
    if cls == "VDI":
        facts |= {("VBD", vbd): None for vbd in store.get("VDI", ref, "VBDs")}
    elif cls == "VM":
        for vbd in store.get("VM", ref, "VBDs"):
            disk = store.row("VDI", store.get("VBD", vbd, "VDI"))
            facts[("VBD", vbd)] = None
            if disk is not None:
                facts[("VDI", store.get("VBD", vbd, "VDI"))] = None
                if store.get("VBD", vbd, "mode") == "RW":
                    facts |= {("VBD", other): None for other in disk["VBDs"]}
    rows = [(of, name, store.find(of, name)) for of, name in facts]
    return [Unchanged(cls=of, ref=name, generation=row.modified) for of, name, row in rows if row is not None]


async def _interrupt(call: Call, lock: Lock, ref: str) -> None:
    """Cancels the operations that this one overrides, and waits until they have ended."""
    deadline = time.monotonic() + lock.policy.value
    with call.api.waiters.watching(lock.cls, ref) as changed:
        while time.monotonic() < deadline:
            changed.clear()
            row = call.store.row(lock.cls, ref)
            operations = row["current_operations"] if row is not None else {}
            tasks = [task for task, operation in operations.items() if operation in lock.interrupts]
            if not tasks:
                return
            for task in tasks:
                await cancel_task(call.api, task)
            await wait(changed, _RECHECK)


def held(call: Call, lock: Lock, arguments: tuple[Any, ...]) -> bool:
    """Whether the call has its lock; if it never heard so, whether the rows say it."""
    row = call.store.row(lock.cls, _locked(call.store, lock, arguments))
    return call.locked or (row is not None and call.task in row["current_operations"])


async def cancel_task(api: Api, task: str) -> None:
    """Asks whoever works for the task to stop: here at once, elsewhere over the bus."""
    api.running.cancel(task)
    await api.bus.publish(CANCEL, Cancel(task=task), task=task)


def release(call: Call, lock: Lock, arguments: tuple[Any, ...], changes: Sequence[Change]) -> list[Change]:
    """What gives the lock back, together with the outcome's `changes`."""
    ref = _locked(call.store, lock, arguments)
    if any(change.cls == lock.cls and change.ref == ref and isinstance(change, Delete) for change in changes):
        return list(changes)
    given_back: Change = MapDrop(cls=lock.cls, ref=ref, field="current_operations", key=call.task)
    everything = [*changes, given_back]
    return [*everything, *published(call.store, lock.cls, ref, everything)]


def orphans(store: Store, running: Container[str]) -> list[Change]:
    """What gives back the locks of tasks that nobody carries out any more, and what went with them."""
    changes: list[Change] = []
    for cls, table in store.tables.items():
        if "current_operations" not in table.cls.fields or cls == "task":
            continue
        for ref, row in table.rows.items():
            operations = row.fields["current_operations"]
            lost = [task for task in operations if task not in running]
            changes += [MapDrop(cls=cls, ref=ref, field="current_operations", key=task) for task in lost]
            if len(lost) == len(operations) and row.fields.get("scheduled_to_be_resident_on", NULL) not in (NULL, ""):
                changes.append(Update(cls=cls, ref=ref, fields={"scheduled_to_be_resident_on": NULL}))
    return changes
