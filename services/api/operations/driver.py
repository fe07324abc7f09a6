"""Messages of classes Host_driver and Driver_variant.

Drivers with variants, and which of them is used, are a tool's business on each host. No host has it.
"""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import Rows, existing
from services.api.locking import decide
from services.api.operation import operation
from shared.contracts.db import Change, Delete
from shared.errors import ApiError
from shared.store import Store


def _require_hardware(rows: Rows, variant: str) -> None:
    """Raises HOST_DRIVER_NO_HARDWARE [variant]."""
    if not existing(rows, "Driver_variant", variant)["hardware_present"]:
        raise ApiError("HOST_DRIVER_NO_HARDWARE", variant)


@operation("Host_driver.select", built=False)
def select(call: Call, self: str, variant: str) -> None:
    row = existing(call.store, "Host_driver", self)
    require_live(call.store, row["host"])
    if variant not in row["variants"]:
        raise ApiError("INVALID_VALUE", "variant", variant)
    _require_hardware(call.store, variant)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("Driver_variant.select", built=False)
def select_variant(call: Call, self: str) -> None:
    driver = existing(call.store, "Host_driver", existing(call.store, "Driver_variant", self)["driver"])
    require_live(call.store, driver["host"])
    _require_hardware(call.store, self)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("Host_driver.deselect", built=False)
def deselect(call: Call, self: str) -> None:
    require_live(call.store, existing(call.store, "Host_driver", self)["host"])
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("Host_driver.rescan", forwarded=True)
async def rescan(call: Call, host: str) -> None:
    """Without the tool a host has no such drivers: rows of them, from a database of elsewhere, go."""

    def decision(store: Store) -> list[Change]:
        gone = {ref: row["variants"] for ref, row in store.rows("Host_driver").items() if row["host"] == host}
        variants: list[Change] = [Delete(cls="Driver_variant", ref=ref) for refs in gone.values() for ref in refs]
        return [*variants, *(Delete(cls="Host_driver", ref=ref) for ref in gone)]

    await decide(call, "host", host, decision)
