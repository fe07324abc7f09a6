"""Tasks: what a client sees of a call that goes on, or made itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.api import clock
from services.api.api import Api
from services.api.call import Call, sync_name
from services.api.wire import result
from shared.contracts.db import Change, Delete, RowPresent, Update
from shared.contracts.task import CANCEL, Cancel
from shared.datamodel import model
from shared.datamodel.types import VOID, Type
from shared.errors import ApiError

COMPLETED_KEPT = 3900.0
PENDING_KEPT = 86400.0
LIMIT = 200
"""Tasks above this number: the oldest completed ones go (`wire-protocol` 5.4)."""


def succeeded(task: str, type_: Type, value: Any) -> Change:
    """How a task ends well. The result is XML text whichever protocol the client speaks."""
    return _ended(task, {"status": "success", "result": result.to_text(type_, value)})


def failed(task: str, error: ApiError) -> Change:
    if error.code == "TASK_CANCELLED":
        return _ended(task, {"status": "cancelled"})
    return _ended(task, {"status": "failure", "error_info": error.description})


def _ended(task: str, fields: Mapping[str, Any]) -> Change:
    common = {"finished": clock.now(), "progress": 1.0, "allowed_operations": []}
    return Update(cls="task", ref=task, fields={**common, **fields})


def finish(call: Call, type_: Type, value: Any, error: ApiError | None) -> list[Change]:
    """What happens to the call's task when it ends: the row of a synchronous call goes. Another's stays as it is."""
    row = call.store.row("task", call.task)
    if row is None or call.inside:
        return []
    if not call.asynchronous:
        return [Delete(cls="task", ref=call.task)]
    if row["status"] != "pending":
        return []
    if "destroy" in row["current_operations"].values():
        return [Delete(cls="task", ref=call.task)]
    if error is not None:
        return [failed(call.task, error)]
    return [succeeded(call.task, type_, "" if type_ is VOID else value)]


def collectable(api: Api, now: float, progress_before: Mapping[str, float]) -> list[str]:
    """Tasks to remove: done long ago, pending for a day without progress, or too many."""
    old: list[str] = []
    completed: list[tuple[float, str]] = []
    kept = 0
    for ref, row in api.store.rows("task").items():
        if row["status"] in ("pending", "cancelling"):
            standing = progress_before.get(ref) == row["progress"]
            if ref not in api.running and standing and now - clock.seconds(row["created"]) > PENDING_KEPT:
                old.append(ref)
            else:
                kept += 1
            continue
        finished = clock.seconds(row["finished"])
        if now - finished > COMPLETED_KEPT or "destroy" in row["current_operations"].values():
            old.append(ref)
        else:
            completed.append((finished, ref))
    surplus = max(0, kept + len(completed) - LIMIT)
    return old + [ref for _, ref in sorted(completed)[:surplus]]


def unattended(api: Api, predecessor: str = "") -> list[str]:
    """Tasks of calls that nobody carries out: their API process has ended. Tasks that clients made are theirs.

    `predecessor`: the host (reference) whose calls ended when this one took over from it as coordinator.
    """
    return [
        ref
        for ref, row in api.store.rows("task").items()
        if row["status"] == "pending"
        and row["resident_on"] in (api.host_ref, predecessor)
        and ref not in api.running
        and model.message(sync_name(row["name_label"])) is not None
    ]


async def abandon(api: Api, tasks: Iterable[str]) -> None:
    """Ends them: whoever still works for them on a host stops, and their rows say so."""
    error = ApiError("INTERNAL_ERROR", "the API process was restarted while it worked on this task")
    changes: list[Change] = []
    for ref in tasks:
        row = api.store.row("task", ref)
        if row is None:
            continue
        await api.bus.publish(CANCEL, Cancel(task=ref), task=ref)
        asynchronous = sync_name(row["name_label"]) != row["name_label"]
        changes.append(failed(ref, error) if asynchronous else Delete(cls="task", ref=ref))
    if changes:
        await api.database.transact(changes, [RowPresent(cls="task", ref=change.ref) for change in changes])
