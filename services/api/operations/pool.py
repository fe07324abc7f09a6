"""Messages of class pool."""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation


@operation("pool.is_slave")
def is_slave(call: Call, host: str) -> bool:
    return not call.api.is_coordinator


@operation("pool.get_license_state")
def get_license_state(call: Call, self: str) -> dict[str, str]:
    """There is nothing to license."""
    existing(call.store, "pool", self)
    return {"edition": "", "expiry": "never"}


@operation("pool.has_extension")
def has_extension(call: Call, self: str, name: str) -> bool:
    """No extension scripts are hosted yet."""
    existing(call.store, "pool", self)
    return False
