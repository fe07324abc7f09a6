"""VM messages that make and remove VMs: create, clone, copy, provision, destroy."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from services.api import clock
from services.api.allowed import ALLOWED, published
from services.api.call import Call, new_ref
from services.api.decisions import provision as provisioning
from services.api.decisions import vm_records
from services.api.decisions.rows import existing, is_null
from services.api.decisions.sr_hosts import check_disks_reachable
from services.api.decisions.vm_removal import removed
from services.api.implicit import constructor_fields
from services.api.operation import Lock, Policy, operation
from services.api.operations.vdi import make_disk
from services.api.operations.vdi_copies import clone_disk, copy_disk
from shared.contracts.db import Change, Create, Update
from shared.errors import ApiError
from shared.store import Store


def fresh() -> str:
    return str(uuids.uuid4())


def with_allowed(store: Store, changes: Sequence[Change]) -> list[Change]:
    """New rows, of VMs and their devices, say what they allow from the start."""
    new = [(change.cls, change.ref) for change in changes if isinstance(change, Create) and change.cls in ALLOWED]
    return [*changes, *(now for cls, ref in new for now in published(store, cls, ref, changes))]


def require_disks(call: Call, vm: str) -> None:
    """Raises NO_HOSTS_AVAILABLE."""
    refusal = check_disks_reachable(call.store, vm)
    if refusal is not None:
        raise refusal


@operation("VM.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    ref = new_ref()
    changes = vm_records.created(ref, constructor_fields("VM", args), fresh)
    await call.transact(with_allowed(call.store, changes))
    return ref


async def _copied(call: Call, vm: str, name: str, disk: Callable[[Call, str], Awaitable[str]]) -> str:
    """Disks first, each by `disk`, then the record, which appears with the end of the call."""
    require_disks(call, vm)
    made: dict[str, str] = {}
    ref = new_ref()
    for vbd_ref in existing(call.store, "VM", vm)["VBDs"]:
        vbd = existing(call.store, "VBD", vbd_ref)
        if vbd["type"] != "CD" and not vbd["empty"] and not is_null(vbd["VDI"]):
            made[vbd_ref] = await disk(call, vbd["VDI"])
    call.on_success += with_allowed(call.store, vm_records.cloned(call.store, vm, ref, name, made, fresh))
    return ref


@operation("VM.clone", Lock("VM", "clone"))
async def clone(call: Call, vm: str, new_name: str) -> str:
    return await _copied(call, vm, new_name, clone_disk)


@operation("VM.copy", Lock("VM", "copy"))
async def copy(call: Call, vm: str, new_name: str, sr: str) -> str:
    """The disks' own SRs, unless one is named."""
    if not is_null(sr):
        existing(call.store, "SR", sr)
    return await _copied(call, vm, new_name, partial(copy_disk, sr=sr))


@operation("VM.provision", Lock("VM", "provision"))
async def provision(call: Call, vm: str) -> None:
    """A template becomes a VM; the disks its `other_config:disks` describes are made."""
    row = existing(call.store, "VM", vm)
    config = dict(row["other_config"])
    disks = provisioning.disks(config.pop("disks", ""))
    if config.pop("postinstall", ""):
        raise ApiError("PERMISSION_DENIED", "postinstall scripts are not allowed on this pool")
    for disk in disks:
        if call.store.ref_of_uuid("SR", disk.sr) is None:
            raise ApiError("UUID_INVALID", "sr", disk.sr)
    for disk in disks:
        await _provision_disk(call, vm, disk)
    fields: dict[str, Any] = {"is_a_template": False, "other_config": config}
    changes: list[Change] = []
    metrics = row["metrics"]
    if is_null(metrics) or call.store.row("VM_metrics", metrics) is None:
        metrics = new_ref()
        fields["metrics"] = metrics
        times = {"start_time": clock.EPOCH, "install_time": clock.now(), "last_updated": clock.now()}
        changes.append(Create(cls="VM_metrics", ref=metrics, fields=times))
    else:
        changes.append(Update(cls="VM_metrics", ref=metrics, fields={"install_time": clock.now()}))
    call.on_success += [*changes, Update(cls="VM", ref=vm, fields=fields)]


async def _provision_disk(call: Call, vm: str, disk: provisioning.Disk) -> None:
    record: dict[str, Any] = {
        "name_label": disk.device,
        "name_description": f"Created by template provisioner for {existing(call.store, 'VM', vm)['name_label']}",
        "SR": call.store.ref_of_uuid("SR", disk.sr),
        "virtual_size": disk.size,
        "type": disk.type,
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "sm_config": {},
    }
    vdi = await make_disk(call, record)
    fields = {
        "VM": vm,
        "VDI": vdi,
        "userdevice": disk.device,
        "bootable": disk.bootable,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": disk.unpluggable,
        "empty": False,
        "other_config": {"owner": ""},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    call.on_success.append(Create(cls="VBD", ref=new_ref(), fields=fields))


@operation("VM.destroy", Lock("VM", "destroy", policy=Policy.STANDARD))
async def destroy(call: Call, self: str) -> None:
    """The record goes with its devices and metrics; disks stay. Snapshots and children move up to its own parent."""
    row = existing(call.store, "VM", self)
    if row["other_config"].get("default_template") == "true":
        raise ApiError("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", self)
    call.on_success += removed(call.store, self)
