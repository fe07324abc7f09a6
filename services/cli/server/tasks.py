"""Waiting for asynchronous calls, with progress for those who like to watch."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from services.cli.server.command import Call
from shared.errors import ApiError

Show = Callable[[float], Awaitable[None]]

POLL = 30.0
"""Seconds that one wait for an event may take."""
WIDTH = 70
"""`#` signs of a finished task."""
_SPINNER = "|/-\\"
_RUNNING = ("pending", "cancelling")


async def finished(call: Call, method: str, *params: Any, progress: bool = False) -> str:
    """Runs `Async.<method>` and returns the task's result. Raises the task's error, or TASK_CANCELLED.

    The task is destroyed when it has ended. If the client leaves earlier, it goes on: nobody asked to cancel it.
    """
    task: str = await call.api.call(f"Async.{method}", *params)
    record = await ended(call, task, _drawing(call) if progress else None)
    if progress:
        await call.printer.stderr("\n")
    await asyncio.shield(call.api.call("task.destroy", task))
    if record["status"] == "failure":
        raise ApiError(*record["error_info"])
    if record["status"] == "cancelled":
        raise ApiError("TASK_CANCELLED", task)
    return str(record["result"])


async def ended(call: Call, task: str, show: Show | None = None) -> dict[str, Any]:
    """The task's record when it has ended. Raises HANDLE_INVALID when it is destroyed instead. `show`: is told of its
    progress, 0 to 1.
    """
    token = ""
    while True:
        answer = await call.api.call("event.from", [f"task/{task}"], token, POLL)
        token = answer["token"]
        for event in answer["events"]:
            if event["operation"] == "del":
                raise ApiError("HANDLE_INVALID", "task", task)
            record: dict[str, Any] = event["snapshot"]
            if show is not None:
                await show(float(record["progress"]))
            if record["status"] not in _RUNNING:
                return record


def _drawing(call: Call) -> Show:
    turns = itertools.count()

    async def show(share: float) -> None:
        await call.printer.stderr(bar(share, next(turns)))

    return show


def bar(share: float, turn: int) -> str:
    """One line of progress. `share`: 0 to 1."""
    share = min(max(share, 0.0), 1.0)
    return f"\r {int(share * 100):3d}% {_SPINNER[turn % len(_SPINNER)]} {'#' * int(share * WIDTH)}"
