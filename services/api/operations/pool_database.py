"""Messages of class pool about its database and its members' link to it."""

from __future__ import annotations

from services.api.call import Call
from services.api.operation import operation
from shared.errors import ApiError


@operation("pool.sync_database")
async def sync_database(call: Call) -> None:
    """All that has been answered is durable already; what is on its way is after this."""
    await call.api.database.transact([])


@operation("pool.recover_slaves")
def recover_slaves(call: Call) -> list[str]:
    """The members that had to be told where the coordinator is: none, they find it by the bus."""
    return []


@operation("pool.enable_redo_log", built=False)
def enable_redo_log(call: Call, sr: str) -> None:
    if call.store.row("SR", sr) is None:
        raise ApiError("CANNOT_ENABLE_REDO_LOG", "there is no such SR")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("pool.disable_redo_log")
def disable_redo_log(call: Call) -> None:
    """No SR holds one; the database's own log stays."""
