"""Messages of class VIF. A running VM's interfaces are changed by its host; that part is not built yet."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from typing import Any

from services.api import clock
from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions import vif_records
from services.api.decisions.device_metrics import removed, with_metrics
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.operation import operation
from shared.contracts.db import RowPresent
from shared.errors import ApiError


@operation("VIF.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    ref, uuid = new_ref(), str(uuids.uuid4())
    row = vif_records.created(call.store, ref, uuid, constructor_fields("VIF", args))
    changes = with_metrics("VIF", row, str(uuids.uuid4()), clock.now())
    await call.transact(
        [*changes, *published(call.store, "VIF", ref, changes)], [RowPresent(cls="VM", ref=row.fields["VM"])]
    )
    return ref


@operation("VIF.destroy")
async def destroy(call: Call, self: str) -> None:
    row = existing(call.store, "VIF", self)
    if row["currently_attached"]:
        raise ApiError("OPERATION_NOT_ALLOWED", f"VIF '{row['uuid']}' still attached to '{row['VM']}'")
    if row["current_operations"]:
        task, running = next(iter(row["current_operations"].items()))
        raise ApiError("OTHER_OPERATION_IN_PROGRESS", "VIF", self, running, task)
    await call.transact(removed(call.store, "VIF", self))


@operation("VM.get_allowed_VIF_devices")
def get_allowed_vif_devices(call: Call, vm: str) -> list[str]:
    return vif_records.allowed(call.store, vm)
