"""Taking and giving back `current_operations`, the locks of the API.

A lock is taken by a transaction whose precondition is the row the decision was made on. What is in the way of a call
makes it wait, as upstream does, until the other operation ends or the policy's time is over; everything else refuses at
once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import AsyncExitStack, nullcontext
from typing import Any, Final

from services.api.allowed import CHECKS, published
from services.api.api import Api
from services.api.call import Call
from services.api.decisions import unfinished_disks
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

    sr = str(call.store.get(lock.cls, ref, "SR")) if lock.sr else ""
    if sr:
        call.ending.append(_given_back(call, "SR", sr))

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        refusal = lock.refuse(store, arguments) if lock.refuse is not None else None
        refusal = refusal or (CHECKS["SR"](store, sr, lock.sr) if sr else None)
        refusal = refusal or CHECKS[lock.cls](store, ref, lock.operation)
        if refusal is not None:
            raise refusal
        taken: list[Change] = [_taken(call, lock.cls, ref, lock.operation)]
        given = _unchanged(store, lock.cls, ref)
        if sr:
            taken.append(_taken(call, "SR", sr, lock.sr))
            taken += published(store, "SR", sr, taken)
            given += _unchanged(store, "SR", sr)
        if lock.reserve is not None:
            taken += lock.reserve(call, store, arguments)
        concerned = {(lock.cls, ref): None} | _devices(store, taken)
        taken += [now for of, name in concerned for now in published(store, of, name, taken)]
        return [*call.task_row(), *taken], given, None

    async def attempt() -> None:
        turns = call.api.turns
        try:
            async with turns.of((lock.cls, ref)), turns.of(("SR", sr)) if sr else nullcontext():
                await call.api.database.decide(decision)
        except BaseException:
            if lock.reserve is not None:
                call.api.placement.withdraw(ref)
            raise

    await _when_free(call.api, attempt, lock.policy)
    call.locked = True
    call.task_exists = call.task_exists or call.has_task


def _taken(call: Call, cls: str, ref: str, operation: str) -> Change:
    return MapPut(cls=cls, ref=ref, field="current_operations", key=call.task, value=operation)


def _given_back(call: Call, cls: str, ref: str) -> Change:
    return MapDrop(cls=cls, ref=ref, field="current_operations", key=call.task)


def _locked(store: Store, lock: Lock, arguments: tuple[Any, ...]) -> str:
    """Reference of what is locked."""
    if lock.find is not None:
        return lock.find(store, arguments)
    if lock.argument is not None:
        return str(arguments[lock.argument])
    return next(iter(store.rows(lock.cls)), NULL)


async def mark(call: Call, *marks: tuple[str, str, str]) -> None:
    """Objects (class, reference) show an operation each until the call ends, beside what it has locked: an SR, a disk
    before its SR. It waits for whoever is in the way. Raises HANDLE_INVALID and the checks' refusals, the SR's first.
    """
    given_back = [_given_back(call, cls, ref) for cls, ref, _ in marks]

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], None]:
        for cls, ref, operation in reversed(marks):
            refusal = CHECKS[cls](store, ref, operation)
            if refusal is not None:
                raise refusal
        taken = [_taken(call, *one) for one in marks]
        allowed = [now for cls, ref, _ in marks for now in published(store, cls, ref, taken)]
        facts = [fact for cls, ref, _ in marks for fact in _unchanged(store, cls, ref)]
        return [*call.task_row(), *taken, *allowed], facts, None

    async def attempt() -> None:
        async with AsyncExitStack() as turns:
            for cls, ref, _ in marks:
                await turns.enter_async_context(call.api.turns.of((cls, ref)))
            await call.api.database.decide(decision)

    call.ending += [change for change in given_back if change not in call.ending]
    await _when_free(call.api, attempt, Policy.STANDARD)
    call.task_exists = call.task_exists or call.has_task


async def unmark(call: Call, *objects: tuple[str, str], more: Sequence[Change] = ()) -> None:
    """They are free again before the call ends: what it does from here on may be done beside others. `more`: written
    with it.
    """
    changes = [_given_back(call, cls, ref) for cls, ref in objects if call.store.row(cls, ref) is not None]
    await call.api.database.transact([*allowing(call, changes), *more])


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
    elif cls == "VBD":
        vdi = store.get("VBD", ref, "VDI")
        disk = store.row("VDI", vdi)
        if disk is not None:
            facts |= {("VDI", vdi): None, **{("VBD", other): None for other in disk["VBDs"]}}
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


def held(call: Call) -> bool:
    """Whether the call has its lock; if it never heard so, whether the rows say it."""
    row = call.store.row(*call.locks) if call.locks[0] else None
    return call.locked or (row is not None and call.task in row["current_operations"])


async def cancel_task(api: Api, task: str) -> None:
    """Asks whoever works for the task to stop: here at once, elsewhere over the bus."""
    api.running.cancel(task)
    await api.bus.publish(CANCEL, Cancel(task=task), task=task)


def release(call: Call, changes: Sequence[Change]) -> list[Change]:
    """What gives the lock back, together with the outcome's `changes`."""
    gone = {(change.cls, change.ref) for change in changes if isinstance(change, Delete)}
    left = [change for change in changes if isinstance(change, Delete) or (change.cls, change.ref) not in gone]
    if call.locks not in gone and call.store.row(*call.locks) is not None:
        left.append(_given_back(call, *call.locks))
    return allowing(call, left)


def allowing(call: Call, changes: Sequence[Change]) -> list[Change]:
    """The same, and what the locked object, SRs and disks that were marked, and devices that have changed allow from
    then on.
    """
    store = call.store
    freed = {(change.cls, change.ref): None for change in changes if isinstance(change, MapDrop)}
    concerned = {one: None for one in freed if one == call.locks or one[0] in _MARKED} | _devices(store, changes)
    return [*changes, *(now for cls, ref in concerned for now in _published(store, cls, ref, changes))]


def _published(store: Store, cls: str, ref: str, changes: Sequence[Change]) -> list[Change]:
    """Nobody can tell what an object allows that depends on one which is gone: an outcome is written all the same."""
    try:
        return published(store, cls, ref, changes)
    except ApiError as error:
        log.info("what %s %s allows cannot be told: %s", cls, ref, error)
        return []


def _devices(store: Store, changes: Sequence[Change]) -> dict[tuple[str, str], None]:
    """The devices among what changes, and their disks."""
    found: dict[tuple[str, str], None] = {}
    for change in changes:
        if change.cls in _DEVICES and store.row(change.cls, change.ref) is not None:
            found[change.cls, change.ref] = None
            disk = store.get("VBD", change.ref, "VDI") if change.cls == "VBD" else NULL
            if store.row("VDI", disk) is not None:
                found["VDI", disk] = None
    return found


_MARKED: Final = frozenset({"SR", "VDI"})
"""Classes of what a call may `mark` beside what it has locked."""

_DEVICES: Final = frozenset({"VBD", "VIF"})
"""Classes whose rows change with their VM."""


def orphans(store: Store, running: Container[str]) -> list[Change]:
    """What gives back the locks of tasks that nobody carries out any more, and what went with them; and what is to be
    known of disks that they have left.
    """
    changes: list[Change] = []
    calls: dict[str, None] = {}
    making: list[tuple[str, str]] = []
    for cls, table in store.tables.items():
        if "current_operations" not in table.cls.fields or cls == "task":
            continue
        for ref, row in table.rows.items():
            operations = row.fields["current_operations"]
            lost = [task for task in operations if task not in running]
            calls |= dict.fromkeys(lost)
            if cls == "SR":
                making += [(ref, task) for task in lost if operations[task] in unfinished_disks.MAKING]
            changes += [MapDrop(cls=cls, ref=ref, field="current_operations", key=task) for task in lost]
            if len(lost) == len(operations) and row.fields.get("scheduled_to_be_resident_on", NULL) not in (NULL, ""):
                changes.append(Update(cls=cls, ref=ref, fields={"scheduled_to_be_resident_on": NULL}))
    return [*changes, *unfinished_disks.lost(store, calls, making)]
