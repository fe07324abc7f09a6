"""Work that must not be left half-way when its caller is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from shared.errors import ApiError

log = logging.getLogger("storage")

Result = TypeVar("Result")


async def settle(work: Coroutine[Any, Any, Result]) -> Result:
    """Awaits the work. A cancellation is raised only when the work has ended, whatever came of it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue  # asked again; the answer comes when the work has ended
        if not task.cancelled():
            task.exception()  # the caller gets the cancellation; the failure was undone by the work itself
        raise


async def settle_or_undo(
    work: Coroutine[Any, Any, Result], undo: Callable[[Result], Coroutine[Any, Any, None]]
) -> Result:
    """As `settle`. What has come of the work is undone if the caller was cancelled: nobody else knows of it. The log
    tells what cannot be undone.
    """
    found: list[Result] = []

    async def keep() -> None:
        found.append(await work)

    try:
        await settle(keep())
    except asyncio.CancelledError:
        if found:
            await settle(_undone(undo(found[0])))
        raise
    return found[0]


async def _undone(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except (ApiError, OSError) as error:
        log.error("what was done for a cancelled call is left: %s", error)
