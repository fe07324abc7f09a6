"""Calls that a call makes: each takes its own locks and has its own task, a subtask of the caller's."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from services.api.api import Api
from services.api.call import OWN, Call
from services.api.edge.dispatcher import Caller
from services.api.operation import OPERATIONS
from shared.datamodel import model


async def perform(call: Call, message: str, *arguments: Any) -> Any:
    """Carries out another message on behalf of this call; its result. Raises what it raises."""
    declared = model.messages[message]
    caller = msgspec.structs.replace(call.caller, task="", subtask_of=call.task, other_config={})
    inner = Call(call.api, caller, declared, message, call.session)
    return await call.api.executor.run(inner, OPERATIONS[message], arguments)


async def perform_alone(api: Api, message: str, *arguments: Any) -> Any:
    """Carries out a message that the coordinator itself wants: with locks and a task, but without a session.

    Who is cancelled meanwhile ends as such, where a client would be told TASK_CANCELLED: these are the tasks of a
    service that stops.
    """
    caller = Caller(host=api.host_uuid, trusted=True, originator=OWN)
    call = Call(api, caller, model.messages[message], message, "")
    try:
        return await api.executor.run(call, OPERATIONS[message], arguments)
    finally:
        this = asyncio.current_task()
        if this is not None and this.cancelling():  # perhaps while the outcome was written, which nothing interrupts
            raise asyncio.CancelledError
