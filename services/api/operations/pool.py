"""Messages of class pool."""

from __future__ import annotations

from services.api.call import Call
from services.api.operation import operation


@operation("pool.is_slave")
def is_slave(call: Call, host: str) -> bool:
    return not call.api.is_coordinator
