"""Files that go between the client and an HTTP handler, which works under a task of the command's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Final
from urllib.parse import urlencode

from services.cli.protocol import HttpGet, HttpPut
from services.cli.server.command import Call
from services.cli.server.failures import Leave
from services.cli.server.progress_bar import ProgressBar
from services.cli.server.tasks import ended
from shared.errors import ApiError

UNCLAIMED = -1.0
"""Progress of a task that no handler has taken over yet; who does sets it to 0."""

SETTLE: Final = 5.0
"""Seconds that the last of the progress may take to be told, once the client is through."""


@asynccontextmanager
async def _drawn(call: Call, task: str) -> AsyncIterator[None]:
    """Draws the task's progress meanwhile; a task that is gone has none."""
    drawn = ProgressBar(call)

    async def draw() -> None:
        try:
            await ended(call, task, drawn.show)
        except ApiError as error:
            if error.code != "HANDLE_INVALID":
                raise

    drawing = asyncio.create_task(draw())
    try:
        yield
        await asyncio.wait({drawing}, timeout=SETTLE)
        await drawn.end()
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)


async def transfer(
    call: Call,
    way: type[HttpGet | HttpPut],
    label: str,
    path: str,
    query: dict[str, str],
    filename: str,
    *,
    progress: bool = False,
) -> str:
    """Has the client fetch the file, or send it; the task's result. `label`: names the task, and what has failed.
    `progress`: shows how far it is.

    Raises the task's error; `Leave` when the client failed.
    """
    task: str = await call.api.call("task.create", label, "")
    try:
        await call.api.call("task.set_progress", task, UNCLAIMED)
        arguments = urlencode({"session_id": call.api.session, "task_id": task, **query})
        async with _drawn(call, task) if progress else nullcontext():
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
