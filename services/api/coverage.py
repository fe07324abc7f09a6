"""What this toolstack does of the XenAPI, message by message, read off the code that answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from services.api import implicit, operations
from services.api.operation import OPERATIONS
from shared.datamodel import model
from shared.datamodel.schema import Message

WORKS, IN_PART, MISSING, REMOVED, INTERNAL = "works", "in part", "not implemented", "removed", "between hosts"
STATES: Final = (WORKS, IN_PART, MISSING, REMOVED, INTERNAL)

MEANING: Final = {
    WORKS: "does what the XenAPI says",
    IN_PART: "some uses answer NOT_IMPLEMENTED [what], before anything has been changed",
    MISSING: "answers NOT_IMPLEMENTED [message], after the refusals that rows alone decide (HANDLE_INVALID, "
    "VM_BAD_POWER_STATE, HOST_OFFLINE ...), or an error of the catalogue that says what is not there",
    REMOVED: "answers MESSAGE_REMOVED, as the original",
    INTERNAL: "hosts of the original call each other by it; ours use the bus. NOT_IMPLEMENTED unless it works",
}


@cache
def states() -> dict[str, str]:
    """Wire name of every message to one of `STATES`."""
    operations.load()
    return {name: _state(message) for name, message in model.messages.items()}


def _state(message: Message) -> str:
    if message.removed:
        return REMOVED
    operation = OPERATIONS.get(message.wire_name)
    if operation is not None:
        if not operation.built:
            return MISSING
        return IN_PART if _gives_up(operation.body) else WORKS
    if message.wire_name in ("event.from", "event.next") or implicit.reader(message) is not None:
        return WORKS
    if implicit.writer(message) is not None and (message.field is None or not message.field.set_has_effect):
        return WORKS
    return INTERNAL if message.pool_internal else MISSING


def _gives_up(function: Callable[..., Any]) -> bool:
    """Whether it, or a function of the operations that it calls, answers NOT_IMPLEMENTED."""
    seen: set[Callable[..., Any]] = set()
    ahead = [function]
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        if '"NOT_IMPLEMENTED"' in inspect.getsource(one):
            return True
        around = inspect.getclosurevars(one)
        called = {**around.globals, **around.nonlocals}.values()
        ahead += [
            each for each in called if inspect.isfunction(each) and each.__module__.startswith(operations.__name__)
        ]
    return False
