"""Messages of class pool about redo logs on SRs."""

from __future__ import annotations

from services.api.call import Call
from services.api.operation import operation
from shared.errors import ApiError


@operation("pool.enable_redo_log", built=False)
def enable_redo_log(call: Call, sr: str) -> None:
    if call.store.row("SR", sr) is None:
        raise ApiError("CANNOT_ENABLE_REDO_LOG", "there is no such SR")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("pool.disable_redo_log")
def disable_redo_log(call: Call) -> None:
    """No SR holds one; the database's own log stays."""
