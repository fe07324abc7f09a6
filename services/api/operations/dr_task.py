"""Messages of class DR_task: SRs of another pool, introduced to recover its VMs from the database they hold."""

from __future__ import annotations

from typing import Final

from services.api.call import Call
from services.api.decisions import features
from services.api.decisions.rows import existing
from services.api.operation import operation
from services.api.subcalls import perform
from shared.contracts.db import Delete
from shared.errors import ApiError

HOLDS_DATABASES: Final = "SR_METADATA"
"""What a storage driver says that can keep a pool's database."""


@operation("DR_task.create", built=False)
def create(call: Call, type_: str, device_config: dict[str, str], whitelist: list[str]) -> str:
    """Only what such a task could not be made of is refused."""
    features.require(call.store, "dr", "DR")
    drivers = (row["features"] for row in call.store.rows("SM").values() if row["type"] == type_)
    if not any(HOLDS_DATABASES in found for found in drivers):
        raise ApiError("OPERATION_NOT_ALLOWED", f"Disaster recovery not supported on SRs of type {type_}")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("DR_task.destroy")
async def destroy(call: Call, self: str) -> None:
    """Its SRs are unplugged everywhere, on the coordinator last, and forgotten."""
    for sr in list(existing(call.store, "DR_task", self)["introduced_SRs"]):
        pbds = {ref: existing(call.store, "PBD", ref) for ref in existing(call.store, "SR", sr)["PBDs"]}
        attached = [ref for ref, row in pbds.items() if row["currently_attached"]]
        for pbd in sorted(attached, key=lambda ref: pbds[ref]["host"] == call.api.host_ref):
            await perform(call, "PBD.unplug", pbd)
        await perform(call, "SR.forget", sr)
    await call.transact([Delete(cls="DR_task", ref=self)])
