"""Messages of class event, but `from` and `next`, which wait (`services.api.events`)."""

from __future__ import annotations

from services.api.call import Call
from services.api.events import Token
from services.api.events.subscription import MESSAGE
from services.api.operation import operation
from shared.contracts.db import Touch
from shared.errors import ApiError


@operation("event.register")
def register(call: Call, classes: list[str]) -> None:
    call.api.hub.register(call.session, classes)


@operation("event.unregister")
def unregister(call: Call, classes: list[str]) -> None:
    call.api.hub.unregister(call.session, classes)


@operation("event.get_current_id")
def get_current_id(call: Call) -> int:
    return call.api.hub.current_id


@operation("event.inject")
async def inject(call: Call, cls: str, ref: str) -> str:
    """A token below the event that this makes: when `event.from` has passed it, everything before has been seen.

    Raises HANDLE_INVALID, also for what is no row of the database: messages.
    """
    if cls == MESSAGE or cls not in call.store.tables or call.store.row(cls, ref) is None:
        raise ApiError("HANDLE_INVALID", cls, ref)
    generation = await call.api.database.transact([Touch(cls=cls, ref=ref)])
    return str(Token(generation - 1, 0))
