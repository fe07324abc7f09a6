"""Messages of class VM_appliance: VMs that are started and stopped together, group by group in their order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from services.api.allowed import published
from services.api.call import Call, new_ref
from services.api.construct import remove
from services.api.decisions import appliance_operations
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.operation import Lock, operation
from services.api.subcalls import perform
from shared.contracts.db import Change, Create, Update
from shared.errors import ApiError

log = logging.getLogger("api.appliance")


@operation("VM_appliance.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    ref = new_ref()
    changes: list[Change] = [Create(cls="VM_appliance", ref=ref, fields=constructor_fields("VM_appliance", args))]
    await call.transact([*changes, *published(call.store, "VM_appliance", ref, changes)])
    return ref


@operation("VM_appliance.destroy")
async def destroy(call: Call, self: str) -> None:
    """Its VMs stay, and keep its reference."""
    await remove(call, "VM_appliance", self)


async def _each(call: Call, appliance: str, op: str, message: str, *arguments: Any) -> None:
    """All VMs of one order together, then those of the next. Raises OPERATION_PARTIALLY_FAILED [op, vms...]."""
    failed: list[str] = []
    for group in appliance_operations.groups(call.store, appliance, op):
        outcomes = await asyncio.gather(
            *(perform(call, message, vm, *arguments) for vm in group), return_exceptions=True
        )
        for vm, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, ApiError):
                log.info("%s of %s failed: %s", message, vm, outcome, extra={"task": call.task})
                failed.append(vm)
            elif isinstance(outcome, BaseException):
                raise outcome
    if failed:
        raise ApiError("OPERATION_PARTIALLY_FAILED", op, *failed)


@operation("VM_appliance.start", Lock("VM_appliance", "start"))
async def start(call: Call, self: str, paused: bool) -> None:
    await _each(call, self, "start", "VM.start", paused, False)


@operation("VM_appliance.clean_shutdown", Lock("VM_appliance", "clean_shutdown"))
async def clean_shutdown(call: Call, self: str) -> None:
    await _each(call, self, "clean_shutdown", "VM.clean_shutdown")


@operation("VM_appliance.hard_shutdown", Lock("VM_appliance", "hard_shutdown"))
async def hard_shutdown(call: Call, self: str) -> None:
    await _each(call, self, "hard_shutdown", "VM.hard_shutdown")


@operation("VM_appliance.shutdown", Lock("VM_appliance", "shutdown"))
async def shutdown(call: Call, self: str) -> None:
    await _each(call, self, "shutdown", "VM.shutdown")


@operation("VM.set_appliance")
async def set_appliance(call: Call, self: str, value: str) -> None:
    row = existing(call.store, "VM", self)
    if row["is_control_domain"] or row["is_a_template"] or row["is_a_snapshot"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "Control domains, templates and snapshots cannot be in an appliance.")
    await call.transact([Update(cls="VM", ref=self, fields={"appliance": value})])
    affected: list[Change] = []
    for appliance in (row["appliance"], value):
        affected += published(call.store, "VM_appliance", appliance, ())
    if affected:
        await call.transact(affected)
