"""Messages of class VDI that make, remove and resize disks. Their SR's storage service does it on a host that has it
attached.
"""

from __future__ import annotations

import hashlib
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from services.api import locking
from services.api.call import Call
from services.api.decisions.rows import NULL, existing
from services.api.decisions.sm_features import is_v1
from services.api.decisions.sr_hosts import host_for_disk
from services.api.decisions.vdi_types import incompatible
from services.api.implicit import constructor_fields
from services.api.new_disk import NewDisk, remove_disk
from services.api.operation import Lock, operation
from services.api.storage_hosts import ask, disk, host_for
from shared.contracts import storage as contract
from shared.contracts.db import Change, Delete, Update
from shared.errors import ApiError
from shared.store import Store

METADATA_BACKUP: Final = "Pool Metadata Backup"
"""Name of the disk that programs look for after a disaster: it has the same uuid each time it is made on an SR."""


def _uuid(call: Call, sr: str, fields: Mapping[str, Any]) -> str:
    """Of the disk with the pool's metadata: the MD5 of its SR's, as the original has it. Any for others: ""."""
    if fields["type"] != "user" or fields["name_label"] != METADATA_BACKUP:
        return ""
    digest = hashlib.md5(call.api.uuid_of("SR", sr).encode(), usedforsecurity=False).digest()
    uuid = str(uuids.UUID(bytes=digest))
    return "" if uuid in call.store.by_uuid else uuid


@operation("VDI.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    return await make_disk(call, args)


async def make_disk(call: Call, record: Mapping[str, Any], uuid: str = "") -> str:
    """A new disk on the record's SR and its row. `uuid`: what it is to be called, if that matters.

    Raises what the SR's plug-in says (SR_FULL, SR_BACKEND_FAILURE_*).
    """
    fields = constructor_fields("VDI", record)
    sr = fields["SR"]
    await locking.mark(call, ("SR", sr, "vdi_create"))
    host_for(call.store, sr)
    if fields["type"] == "cbt_metadata":  # made by the SR with what it describes
        raise incompatible("", fields["type"])
    if fields["virtual_size"] < 0 and not is_v1(call.store, existing(call.store, "SR", sr)):
        raise ApiError("INVALID_VALUE", "virtual_size", fields["virtual_size"])
    new = NewDisk(call, sr, uuid or _uuid(call, sr, fields))
    request = contract.VdiCreate(
        sr=new.sr_uuid,
        uuid=new.uuid,
        virtual_size=fields["virtual_size"],
        name_label=fields["name_label"],
        name_description=fields["name_description"],
        type=fields["type"],
        sm_config=fields["sm_config"],
        sharable=fields["sharable"],
        read_only=fields["read_only"],
    )
    await new.make(contract.VDI_CREATE, request)
    given = ("name_label", "name_description", "type", "sharable", "other_config", "xenstore_data", "tags")
    return await new.keep({name: fields[name] for name in given})


# ---- gone


def users_forgotten(store: Store, vdi: str) -> list[Change]:
    """A disk that goes takes its drives along; VMs that were suspended into it are not any more."""
    drives: list[Change] = [Delete(cls="VBD", ref=ref) for ref in existing(store, "VDI", vdi)["VBDs"]]
    suspended = [ref for ref, vm in store.rows("VM").items() if vm["suspend_VDI"] == vdi]
    return [*drives, *(Update(cls="VM", ref=ref, fields={"suspend_VDI": NULL}) for ref in suspended)]


@operation("VDI.destroy", Lock("VDI", "destroy", sr="vdi_destroy"))
async def destroy(call: Call, self: str) -> None:
    """A driver may remove the row itself."""
    row = existing(call.store, "VDI", self)
    call.moves_disk(row["uuid"])
    call.on_success += [*users_forgotten(call.store, self), Delete(cls="VDI", ref=self)]
    await remove_disk(call, row["SR"], disk(call.api, self))


@operation("VDI.forget", Lock("VDI", "forget"))
async def forget(call: Call, vdi: str) -> None:
    """The row goes, the disk stays: a scan of the SR brings it back."""
    call.on_success.append(Delete(cls="VDI", ref=vdi))


# ---- size


def _resize(message: str, op: str) -> None:
    """Both are the same for the SR; the operation's check knows whether the disk may be in use."""

    @operation(message, Lock("VDI", op, sr="vdi_resize"))
    async def resize(call: Call, vdi: str, size: int) -> None:
        host = host_for_disk(call.store, vdi)
        place = disk(call.api, vdi)
        request = contract.VdiResize(sr=place.sr, location=place.location, virtual_size=size)
        info = await ask(call.api, host, contract.VDI_RESIZE, request)
        sizes = {"virtual_size": info.virtual_size, "physical_utilisation": info.physical_utilisation}
        call.on_success.append(Update(cls="VDI", ref=vdi, fields=sizes))


for _message, _op in (("VDI.resize", "resize"), ("VDI.resize_online", "resize_online")):
    _resize(_message, _op)


@operation("VDI.force_unlock", Lock("VDI", "force_unlock"), built=False)
def force_unlock(call: Call, vdi: str) -> None:
    """No SR has such locks any more."""
    host_for(call.store, existing(call.store, "VDI", vdi)["SR"])
    raise ApiError("MESSAGE_DEPRECATED")
