"""Messages of class task. A client may change its own tasks; all local superuser sessions are one owner."""

from __future__ import annotations

from typing import Any

from services.api import clock, locking, roles
from services.api.call import Call, new_ref
from services.api.operation import operation
from shared.contracts.db import Change, Create, Delete, MapDrop, MapPut, Update

PENDING = ("pending", "cancelling")
DESTROYED = "task"
"""Key in `current_operations` that marks a task to be destroyed when it has ended."""


def _own(call: Call, task: str) -> None:
    """Raises HANDLE_INVALID; RBAC_PERMISSION_DENIED unless the task is the caller's or its role covers all."""
    roles.require_own_task(call.api, call.session, task)


@operation("task.create")
async def create(call: Call, label: str, description: str) -> str:
    ref = new_ref()
    fields = {
        "name_label": label,
        "name_description": description,
        "created": clock.now(),
        "finished": clock.EPOCH,
        "status": "pending",
        "session": call.session,
        "resident_on": call.api.host_ref,
        "progress": 0.0,
        "type": "<none/>",
        "subtask_of": call.parent,
    }
    await call.api.database.transact([Create(cls="task", ref=ref, fields=fields)])
    return ref


@operation("task.destroy")
async def destroy(call: Call, self: str) -> None:
    """A task that has not ended goes when it does."""
    _own(call, self)
    if call.store.get("task", self, "status") not in PENDING:
        await call.api.database.transact([Delete(cls="task", ref=self)])
        return
    flag = MapPut(cls="task", ref=self, field="current_operations", key=DESTROYED, value="destroy", new=True)
    await call.api.database.transact([flag])


@operation("task.cancel")
async def cancel(call: Call, task: str) -> None:
    """Asks whoever works for it to stop. For a task that has ended nobody does; it is noted all the same."""
    _own(call, task)
    await call.api.database.transact(
        [MapPut(cls="task", ref=task, field="current_operations", key=call.task, value="cancel")]
    )
    await locking.cancel_task(call.api, task)


async def _set(call: Call, task: str, field: str, value: Any) -> None:
    _own(call, task)
    await call.api.database.transact([Update(cls="task", ref=task, fields={field: value})])


@operation("task.set_status")
async def set_status(call: Call, self: str, value: str) -> None:
    await _set(call, self, "status", value)


@operation("task.set_progress")
async def set_progress(call: Call, self: str, value: float) -> None:
    await _set(call, self, "progress", value)


@operation("task.set_result")
async def set_result(call: Call, self: str, value: str) -> None:
    await _set(call, self, "result", value)


@operation("task.set_error_info")
async def set_error_info(call: Call, self: str, value: list[str]) -> None:
    await _set(call, self, "error_info", value)


@operation("task.set_other_config")
async def set_other_config(call: Call, self: str, value: dict[str, str]) -> None:
    await _set(call, self, "other_config", value)


async def _change(call: Call, task: str, change: Change) -> None:
    _own(call, task)
    await call.api.database.transact([change])


@operation("task.add_to_other_config")
async def add_to_other_config(call: Call, self: str, key: str, value: str) -> None:
    change = MapPut(cls="task", ref=self, field="other_config", key=key, value=value, new=True)
    await _change(call, self, change)


@operation("task.remove_from_other_config")
async def remove_from_other_config(call: Call, self: str, key: str) -> None:
    await _change(call, self, MapDrop(cls="task", ref=self, field="other_config", key=key))
