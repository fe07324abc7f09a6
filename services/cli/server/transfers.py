"""Files that go between the client and an HTTP handler, which works under a task of the command's."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from services.cli.protocol import HttpGet, HttpPut
from services.cli.server.command import Call
from services.cli.server.failures import Leave
from services.cli.server.tasks import ended
from shared.errors import ApiError

UNCLAIMED = -1.0
"""Progress of a task that no handler has taken over yet; who does sets it to 0."""


async def transfer(
    call: Call, way: type[HttpGet | HttpPut], label: str, path: str, query: dict[str, str], filename: str
) -> str:
    """Has the client fetch the file, or send it; the task's result. `label`: names the task, and what has failed.

    Raises the task's error; `Leave` when the client failed.
    """
    task: str = await call.api.call("task.create", label, "")
    try:
        await call.api.call("task.set_progress", task, UNCLAIMED)
        arguments = urlencode({"session_id": call.api.session, "task_id": task, **query})
        moved = await call.terminal.transfer(way(filename, f"{path}?{arguments}"))
        if not moved and await call.api.call("task.get_progress", task) < 0:
            await call.api.call("task.set_status", task, "failure")
        record = await ended(call, task)
    finally:
        await asyncio.shield(call.api.call("task.destroy", task))
    if record["status"] == "cancelled":
        raise ApiError("TASK_CANCELLED", task)
    if record["status"] == "failure" and record["error_info"]:
        raise ApiError(*record["error_info"])
    if record["status"] == "failure":
        await call.printer.stderr(f"{label} failed: the server could not be asked\n")
        raise Leave(1)
    if not moved:
        await call.printer.stderr(f"{label} failed: unknown error\n")
        raise Leave(1)
    return str(record["result"])
