"""Messages of class VDI. Disks are made and changed by the storage service of a host that has their SR attached."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from typing import Any

from services.api import clock
from services.api.call import Call, new_ref
from services.api.decisions.rows import existing
from services.api.decisions.vdi_types import incompatible
from services.api.implicit import constructor_fields
from services.api.locking import wait_until_allowed
from services.api.operation import Lock, operation
from services.api.storage_hosts import host_for, vdi_fields
from shared.bus.contract import Method
from shared.bus.interface import BusError
from shared.contracts import storage as contract
from shared.contracts.db import Change, Create, Delete, Update
from shared.errors import ApiError
from shared.store import NULL


@operation("VDI.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    return await make_disk(call, args)


async def make_disk(call: Call, record: Mapping[str, Any]) -> str:
    """A new disk on the record's SR and its row. Raises what the SR's plug-in says (SR_FULL, SR_BACKEND_FAILURE_*)."""
    fields = constructor_fields("VDI", record)
    sr, size = fields["SR"], fields["virtual_size"]
    await wait_until_allowed(call, "SR", sr, "vdi_create")
    if fields["type"] == "cbt_metadata":  # made by the SR with what it describes
        raise incompatible("", fields["type"])
    if size <= 0:
        raise ApiError("INVALID_VALUE", "virtual_size", size)
    disk = _NewDisk(call, sr)
    request = contract.VdiCreate(
        sr=disk.sr_uuid,
        uuid=disk.uuid,
        virtual_size=size,
        name_label=fields["name_label"],
        name_description=fields["name_description"],
        type=fields["type"],
        sm_config=fields["sm_config"],
    )
    info = await disk.make(contract.VDI_CREATE, request)
    return await disk.keep({**fields, **vdi_fields(info), "managed": True, "snapshot_time": clock.EPOCH})


class _NewDisk:
    """A disk that a call makes on an SR, and its row. Both go again if the call fails, however far it came."""

    def __init__(self, call: Call, sr: str) -> None:
        self.uuid = str(uuids.uuid4())
        self.sr_uuid = call.api.uuid_of("SR", sr)
        self._call = call
        self._sr = sr
        self._ref = new_ref()
        self._location = ""
        call.moves_disk(self.uuid)

    async def make(self, method: Method[Any, contract.VdiInfo], request: Any) -> contract.VdiInfo:
        host = self._call.api.uuid_of("host", host_for(self._call.store, self._sr))
        self._call.undo.append(self._undo)
        try:
            info = await self._call.api.bus.call(method, request, host=host)
        except ApiError as error:
            if not isinstance(error, BusError) and error.code != "TASK_CANCELLED":
                self._call.undo.remove(self._undo)  # the SR says that there is none
            raise
        self._location = info.location
        return info

    async def keep(self, row: Mapping[str, Any]) -> str:
        await self._call.transact([Create(cls="VDI", ref=self._ref, fields=dict(row))])
        return self._ref

    async def _undo(self) -> None:
        store = self._call.store
        row = store.row("VDI", self._ref)
        vbds: list[Change] = [Delete(cls="VBD", ref=ref) for ref in (row["VBDs"] if row is not None else ())]
        await self._call.api.database.transact([*vbds, Delete(cls="VDI", ref=self._ref)])
        host = self._call.api.uuid_of("host", host_for(store, self._sr))
        if not self._location:  # no answer: the SR knows whether there is a disk, and where
            scan = await self._call.api.bus.call(contract.SR_SCAN, contract.SrRef(sr=self.sr_uuid), host=host)
            self._location = next((info.location for info in scan.disks if info.uuid == self.uuid), "")
        if self._location:
            await _destroy(self._call, self._sr, contract.VdiRef(sr=self.sr_uuid, location=self._location))


async def _destroy(call: Call, sr: str, disk: contract.VdiRef) -> None:
    """Removes the disk itself; one that its SR no longer has is fine."""
    try:
        await call.api.bus.call(contract.VDI_DESTROY, disk, host=call.api.uuid_of("host", host_for(call.store, sr)))
    except ApiError as error:
        if error.code != "VDI_MISSING":
            raise


@operation("VDI.destroy", Lock("VDI", "destroy"))
async def destroy(call: Call, self: str) -> None:
    row = existing(call.store, "VDI", self)
    call.moves_disk(row["uuid"])
    await _destroy(call, row["SR"], contract.VdiRef(sr=call.api.uuid_of("SR", row["SR"]), location=row["location"]))
    call.on_success.append(Delete(cls="VDI", ref=self))
    for vbd in call.store.get("VDI", self, "VBDs"):
        row = existing(call.store, "VBD", vbd)
        if row["type"] == "CD":
            call.on_success.append(Update(cls="VBD", ref=vbd, fields={"VDI": NULL, "empty": True}))
        else:
            call.on_success.append(Delete(cls="VBD", ref=vbd))


async def copy_disk(call: Call, vdi: str, method: Any, *, snapshot: bool = False, name: str | None = None) -> str:
    """A clone, snapshot or copy of a disk in its own SR, and its row."""
    row = existing(call.store, "VDI", vdi)
    disk = _NewDisk(call, row["SR"])
    request = contract.VdiClone(
        sr=disk.sr_uuid,
        location=row["location"],
        uuid=disk.uuid,
        snapshot=snapshot,
        name_label=row["name_label"] if name is None else name,
    )
    info = await disk.make(method, request)
    kept = ("name_description", "SR", "type", "sharable", "other_config", "xenstore_data", "tags", "on_boot")
    fields: dict[str, Any] = {
        **{field: row[field] for field in kept},
        **vdi_fields(info),
        "name_label": request.name_label,
        "managed": True,
        "is_a_snapshot": snapshot,
        "snapshot_of": vdi if snapshot else NULL,
        "snapshot_time": clock.now() if snapshot else clock.EPOCH,
        "read_only": row["read_only"] or snapshot,
    }
    return await disk.keep(fields)


@operation("VDI.clone", Lock("VDI", "clone"))
async def clone(call: Call, vdi: str, driver_params: dict[str, str]) -> str:
    return await copy_disk(call, vdi, contract.VDI_CLONE)


@operation("VDI.snapshot", Lock("VDI", "snapshot"))
async def snapshot(call: Call, vdi: str, driver_params: dict[str, str]) -> str:
    return await copy_disk(call, vdi, contract.VDI_CLONE, snapshot=True)


@operation("VDI.copy", Lock("VDI", "copy"))
async def copy(call: Call, vdi: str, sr: str, base_vdi: str, into_vdi: str) -> str:
    """A full copy inside the SR; copies to another SR and into an existing disk are not built yet."""
    source, target = existing(call.store, "VDI", vdi), call.store.row("VDI", into_vdi)
    if target is None:
        existing(call.store, "SR", sr)
    elif target["read_only"]:
        raise ApiError("VDI_READONLY", into_vdi)
    elif target["virtual_size"] < source["virtual_size"]:
        raise ApiError("VDI_TOO_SMALL", into_vdi, source["virtual_size"])
    if target is not None or sr != source["SR"] or call.store.row("VDI", base_vdi) is not None:
        raise ApiError("NOT_IMPLEMENTED", "VDI.copy to another SR or into a VDI")
    return await copy_disk(call, vdi, contract.VDI_COPY)


@operation("VDI.resize", Lock("VDI", "resize"))
async def resize(call: Call, vdi: str, size: int) -> None:
    row = existing(call.store, "VDI", vdi)
    if size < row["virtual_size"]:
        raise ApiError("INVALID_VALUE", "size", str(size))
    request = contract.VdiResize(sr=call.api.uuid_of("SR", row["SR"]), location=row["location"], virtual_size=size)
    host = call.api.uuid_of("host", host_for(call.store, row["SR"]))
    info = await call.api.bus.call(contract.VDI_RESIZE, request, host=host)
    sizes = {"virtual_size": info.virtual_size, "physical_utilisation": info.physical_utilisation}
    call.on_success.append(Update(cls="VDI", ref=vdi, fields=sizes))


@operation("VDI.forget", Lock("VDI", "forget"))
async def forget(call: Call, vdi: str) -> None:
    """The row goes, the disk stays: a scan of the SR brings it back."""
    call.on_success.append(Delete(cls="VDI", ref=vdi))
