"""For whom a call is made: carried in every envelope, inherited by the calls a handler makes in turn."""

from __future__ import annotations

import time
from contextvars import ContextVar

import msgspec

CANCELLED_STATUS = "TASK_CANCELLED"
NO_TERM = -1
"""Of calls that are made for no coordinator, nor to be counted as such: between those that find out who it is."""


class CallContext(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`deadline`: Unix time in seconds after which nobody waits for the answer (None: none was set).

    `request`: id of the bus request being handled ("" outside of a handler); a repeated request has the same one.
    `term`: the coordinator's term as far as the caller knows (0: unknown; NO_TERM: not asked for). `traceparent`: W3C
    Trace Context.
    `observed`: who records spans of the trace, as `shared.trace.scopes` writes it; "": everybody.
    `call`: the XenAPI message, or the HTTP request, that it is part of. `origin`: the task that it is part of, where
    `task` is empty since it must not be cancelled with it.
    """

    task: str = ""
    session: str = ""
    user: str = ""
    call: str = ""
    origin: str = ""
    term: int = 0
    traceparent: str = ""
    observed: str = ""
    deadline: float | None = None
    request: str = ""

    def remaining(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.time()


current: ContextVar[CallContext] = ContextVar("call_context", default=CallContext())  # noqa: B039 (it is frozen)
"""The context of the call being handled in this asyncio task."""
