"""Messages of class VMSS: snapshot schedules. The host's plug-in `vmss` takes the snapshots, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.construct import plain_class
from services.api.decisions import features
from services.api.decisions.rows import existing
from services.api.decisions.snapshot_schedule import check_retained, check_schedule
from services.api.on_hosts import on_host
from services.api.operation import operation
from shared.contracts.db import MapDrop, Update
from shared.contracts.host import CALL_PLUGIN, PluginCall
from shared.errors import ApiError


def _new(call: Call, fields: Mapping[str, Any]) -> ApiError | None:
    return check_retained(fields["retained_snapshots"]) or check_schedule(fields["schedule"])


def _old(call: Call, vmss: str) -> ApiError | None:
    return ApiError("VMSS_HAS_VM") if existing(call.store, "VMSS", vmss)["VMs"] else None


plain_class("VMSS", new=_new, old=_old)


async def _set(call: Call, vmss: str, name: str, value: Any, refusal: ApiError | None = None) -> None:
    existing(call.store, "VMSS", vmss)
    if refusal is not None:
        raise refusal
    await call.transact([Update(cls="VMSS", ref=vmss, fields={name: value})])


@operation("VMSS.set_retained_snapshots")
async def set_retained_snapshots(call: Call, self: str, value: int) -> None:
    await _set(call, self, "retained_snapshots", value, check_retained(value))


@operation("VMSS.set_frequency")
async def set_frequency(call: Call, self: str, value: str) -> None:
    await _set(call, self, "frequency", value)


@operation("VMSS.set_type")
async def set_type(call: Call, self: str, value: str) -> None:
    await _set(call, self, "type", value)


@operation("VMSS.set_schedule")
async def set_schedule(call: Call, self: str, value: dict[str, str]) -> None:
    await _set(call, self, "schedule", value, check_schedule(value))


@operation("VMSS.add_to_schedule")
async def add_to_schedule(call: Call, self: str, key: str, value: str) -> None:
    schedule = {**existing(call.store, "VMSS", self)["schedule"], key: value}
    await _set(call, self, "schedule", schedule, check_schedule({key: value}))


@operation("VMSS.remove_from_schedule")
async def remove_from_schedule(call: Call, self: str, key: str) -> None:
    existing(call.store, "VMSS", self)
    await call.transact([MapDrop(cls="VMSS", ref=self, field="schedule", key=key)])


@operation("VMSS.set_last_run_time")
async def set_last_run_time(call: Call, self: str, value: str) -> None:
    await _set(call, self, "last_run_time", value)


@operation("VMSS.snapshot_now")
async def snapshot_now(call: Call, vmss: str) -> str:
    """The plug-in of that name, on the coordinator, takes the snapshots. Raises what it raises, or
    XENAPI_MISSING_PLUGIN.
    """
    row = existing(call.store, "VMSS", vmss)
    features.require(call.store, "vmss", "VMSS")
    args = {"vmss_uuid": str(row["uuid"])}
    request = PluginCall(plugin="vmss", function="snapshot_now", arguments=args, session=call.session)
    return (await on_host(call, call.api.host_ref, CALL_PLUGIN, request)).text
