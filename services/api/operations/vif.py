"""Messages of class VIF. A running VM's interfaces are changed by its host; that part is not built yet."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from typing import Any

from services.api import clock, locking
from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.decisions import vif_records
from services.api.decisions.device_metrics import with_metrics
from services.api.implicit import constructor_fields
from services.api.operation import operation
from services.api.operations.devices import gone, refuse_while_destroyed
from shared.contracts.db import Change
from shared.store import Store


@operation("VIF.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    ref, uuid, metrics = new_ref(), str(uuids.uuid4()), str(uuids.uuid4())
    fields = constructor_fields("VIF", args)

    def decision(store: Store) -> list[Change]:
        refuse_while_destroyed(store, fields["VM"])
        row = vif_records.created(store, ref, uuid, fields)
        changes = with_metrics("VIF", row, metrics, clock.now())
        return [*changes, *published(store, "VIF", ref, changes)]

    await locking.decide(call, "VM", fields["VM"], decision)
    return ref


@operation("VIF.destroy")
async def destroy(call: Call, self: str) -> None:
    await locking.decide(call, "VIF", self, lambda store: gone(store, "VIF", self))


@operation("VM.get_allowed_VIF_devices")
def get_allowed_vif_devices(call: Call, vm: str) -> list[str]:
    return vif_records.allowed(call.store, vm)
