"""Tasks of HTTP handlers (`wire-protocol` 1.4): one that the client brought is adopted and always ended; otherwise a
handler may have one of its own, which goes with it.

An adopted task names this host in `forwarded_to` while somebody here works for it: a process that starts anew finds
by that what its predecessor left, and ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.api import clock, roles
from services.api.api import Api
from services.api.call import new_ref
from services.api.edge.credentials import argument
from services.api.handlers.handler import Request
from services.api.patience import ATTEMPTS, may_pass, pause
from services.api.tasks import failed
from shared.contracts.db import Change, Create, Delete, Precondition, RowPresent, Unchanged, Update
from shared.errors import ApiError
from shared.store import NULL, Store

log = logging.getLogger("api.handlers")


def require_own(api: Api, session: str, task: str) -> Mapping[str, Any]:
    """The task's row. Raises HANDLE_INVALID; RBAC_PERMISSION_DENIED for another user's, unless the role covers all."""
    row = api.store.row("task", task)
    if row is None:
        raise ApiError("HANDLE_INVALID", "task", task)
    if session:
        roles.require_own_task(api, session, task)
    return row


async def adopt(request: Request) -> None:
    """Takes over the client's task, or makes one if the row has its own. `request.task` is "" when there is none.

    A task that has ended already is left as it is. Raises HANDLE_INVALID, RBAC_PERMISSION_DENIED;
    OTHER_OPERATION_IN_PROGRESS for the task of a call; TASK_CANCELLED for one that is to be cancelled.
    """
    api, given = request.api, request.given_task
    if not given:
        if request.row.task:
            request.task = new_ref()
            await api.database.transact([_own(request)])
        return
    require_own(api, request.session, given)

    def decision(store: Store) -> tuple[Sequence[Change], Sequence[Precondition], bool]:
        row = store.row("task", given)
        if row is None:
            raise ApiError("HANDLE_INVALID", "task", given)
        if row["status"] != "pending":
            return [], [], False
        if given in api.running or row["forwarded_to"] not in (NULL, ""):
            raise ApiError("OTHER_OPERATION_IN_PROGRESS", "task", given)
        taken: dict[str, Any] = {
            "progress": 0.0,
            "forwarded_to": api.host_ref,
            "resident_on": api.host_ref,
            "allowed_operations": ["cancel"],
        }
        return [Update(cls="task", ref=given, fields=taken)], _unchanged(store, given), True

    if await api.database.decide(decision):
        request.task = given
        if "cancel" in api.store.get("task", given, "current_operations").values():
            raise ApiError("TASK_CANCELLED", given)


def _unchanged(store: Store, task: str) -> list[Precondition]:
    row = store.find("task", task)
    return [] if row is None else [Unchanged(cls="task", ref=task, generation=row.modified)]


def _own(request: Request) -> Change:
    caller = request.caller
    fields = {
        "name_label": request.row.name,
        "created": clock.now(),
        "finished": clock.EPOCH,
        "status": "pending",
        "session": request.session or NULL,
        "resident_on": request.api.host_ref,
        "forwarded_to": request.api.host_ref,
        "progress": 0.0,
        "allowed_operations": ["cancel"],
        "type": "<none/>",
        "subtask_of": argument(request.exchange.head, "subtask_of") or NULL,
        "other_config": {f"http:{key}": value for key, value in caller.other_config.items()},
    }
    return Create(cls="task", ref=request.task, fields=fields)


async def end(request: Request, error: ApiError | None) -> None:
    """Writes how the request ended, `request.ending` with it; a task of its own goes. Tries for some minutes."""

    def changes() -> list[Change]:
        return [*(request.ending if error is None else ()), *_ended(request, error)]

    await _persist(request.api, changes)


def _ended(request: Request, error: ApiError | None) -> list[Change]:
    row = request.store.row("task", request.task) if request.task else None
    if row is None:
        return []
    if not request.given_task or "destroy" in row["current_operations"].values():
        return [Delete(cls="task", ref=request.task)]
    given_up: Change = Update(cls="task", ref=request.task, fields={"forwarded_to": NULL})
    if row["status"] != "pending":
        return [given_up]
    return [given_up, failed(request.task, error) if error is not None else _succeeded(request.task)]


def _succeeded(task: str) -> Change:
    """A result that the handler, or the client, has written stays."""
    fields = {"status": "success", "finished": clock.now(), "progress": 1.0, "allowed_operations": []}
    return Update(cls="task", ref=task, fields=fields)


async def fail_given(api: Api, session: str, task: str, error: ApiError) -> None:
    """A request that was refused before its task was adopted. Tasks that are not the session's stay as they are."""
    try:
        row = require_own(api, session, task)
    except ApiError as reason:
        log.info("the task of a refused request is not its client's: %s", reason)
        return
    if row["status"] == "pending" and task not in api.running and row["forwarded_to"] in (NULL, ""):
        await _persist(api, lambda: [failed(task, error)] if api.store.row("task", task) is not None else [])


async def abandon(api: Api) -> None:
    """Ends what an earlier process of this host has left."""
    here = api.host_ref
    error = ApiError("INTERNAL_ERROR", "the API process was restarted while it worked on this task")
    changes: list[Change] = []
    for ref, row in api.store.rows("task").items():
        if row["forwarded_to"] == here and here != NULL and ref not in api.running:
            changes.append(Update(cls="task", ref=ref, fields={"forwarded_to": NULL}))
            if row["status"] == "pending":
                changes.append(failed(ref, error))
    if changes:
        await api.database.transact(changes, [RowPresent(cls="task", ref=change.ref) for change in changes])


async def _persist(api: Api, changes: Callable[[], list[Change]]) -> None:
    """The database may be away for the moment. Raises what went wrong last."""
    for number in range(ATTEMPTS):
        wanted = changes()
        if not wanted:
            return
        try:
            await api.database.transact(wanted)
            return
        except ApiError as problem:
            # Somebody may have removed the task meanwhile.
            if not (may_pass(problem) or problem.code == "HANDLE_INVALID") or number == ATTEMPTS - 1:
                raise
            log.warning("the end of an HTTP request is not written yet: %s", problem)
        await asyncio.sleep(pause(number))
