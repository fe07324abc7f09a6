"""Calls that a call makes: each takes its own locks and has its own task, a subtask of the caller's."""

from __future__ import annotations

from typing import Any

import msgspec

from services.api.call import Call
from services.api.operation import OPERATIONS
from shared.datamodel import model


async def perform(call: Call, message: str, *arguments: Any) -> Any:
    """Carries out another message on behalf of this call; its result. Raises what it raises."""
    declared = model.messages[message]
    caller = msgspec.structs.replace(call.caller, task="", subtask_of=call.task, other_config={})
    inner = Call(call.api, caller, declared, message, call.session)
    return await call.api.executor.run(inner, OPERATIONS[message], arguments)
