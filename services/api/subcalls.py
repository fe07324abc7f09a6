"""Calls that a call makes: each takes its own locks and has its own task, a subtask of the caller's."""

from __future__ import annotations

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
    """Carries out a message that the coordinator itself wants: with locks and a task, but without a session."""
    caller = Caller(host=api.host_uuid, trusted=True, originator=OWN)
    return await api.executor.run(
        Call(api, caller, model.messages[message], message, ""), OPERATIONS[message], arguments
    )
