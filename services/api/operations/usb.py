"""Messages of classes PUSB, USB_group and VUSB. Rows only: no host hands a USB device to a VM yet, so that `VM.start`
refuses a VM with one.
"""

from __future__ import annotations

from typing import Final

from services.api.allowed import CHECKS, published
from services.api.call import Call
from services.api.construct import insert
from services.api.decisions import features, host_devices
from services.api.decisions.rows import existing
from services.api.implicit import new_row
from services.api.locking import Decision, decide
from services.api.on_hosts import on_host
from services.api.operation import operation
from services.api.subcalls import perform
from shared.bus.contract import Empty
from shared.contracts.db import Change, Create, Delete, Update
from shared.contracts.host import DEVICES
from shared.errors import ApiError
from shared.store import Store

MOST: Final = 6
"""VUSBs of one VM."""


async def _change(call: Call, cls: str, ref: str, decision: Decision) -> None:
    """Devices, groups and their users look at each other's rows: one change at a time."""
    async with call.api.turns.of("USB"):
        await decide(call, cls, ref, decision)


# ---- groups


@operation("USB_group.create")
async def create_group(call: Call, name_label: str, name_description: str, other_config: dict[str, str]) -> str:
    fields = {"name_label": name_label, "name_description": name_description, "other_config": other_config}
    return await insert(call, "USB_group", fields)


@operation("USB_group.destroy")
async def destroy_group(call: Call, self: str) -> None:
    """Its VUSBs go with it."""

    def decision(store: Store) -> list[Change]:
        row = existing(store, "USB_group", self)
        if attached := [ref for ref in row["VUSBs"] if store.get("VUSB", ref, "currently_attached")]:
            raise ApiError("USB_GROUP_CONTAINS_VUSB", *attached)
        if row["PUSBs"]:
            raise ApiError("USB_GROUP_CONTAINS_PUSB", *row["PUSBs"])
        vusbs: list[Change] = [Delete(cls="VUSB", ref=ref) for ref in row["VUSBs"]]
        return [*vusbs, Delete(cls="USB_group", ref=self)]

    await _change(call, "USB_group", self, decision)


# ---- devices of the hosts


@operation("PUSB.scan")
async def scan(call: Call, host: str) -> None:
    """Looks again at what is plugged into the host; it has already when this answers."""
    found = (await on_host(call, host, DEVICES, Empty())).usb
    uuid = call.api.uuid_of("host", host)
    await _change(call, "host", host, lambda store: host_devices.usb_rows(store, uuid, host, found))


@operation("PUSB.set_passthrough_enabled")
async def set_passthrough(call: Call, self: str, value: bool) -> None:
    """A device that VMs may have is no disk of the host's any more, and the other way round."""
    if value:
        await _change(call, "PUSB", self, lambda store: _opened(store, self))
        return
    await _change(call, "PUSB", self, lambda store: _closed(store, self))
    for sr, row in list(call.store.rows("SR").items()):
        if row["type"] == "udev":
            await perform(call, "SR.scan", sr)


def _opened(store: Store, pusb: str) -> list[Change]:
    """Raises PUSB_VDI_CONFLICT while the host's disk on the device has a drive."""
    path = existing(store, "PUSB", pusb)["path"]
    changes: list[Change] = [Update(cls="PUSB", ref=pusb, fields={"passthrough_enabled": True})]
    for sr in store.rows("SR").values():
        for vdi in sr["VDIs"] if sr["type"] == "udev" else ():
            disk = existing(store, "VDI", vdi)
            if disk["sm_config"].get("usb_path", "") == path:
                if disk["VBDs"]:
                    raise ApiError("PUSB_VDI_CONFLICT", pusb, vdi)
                changes.append(Delete(cls="VDI", ref=vdi))
    return changes


def _closed(store: Store, pusb: str) -> list[Change]:
    """Raises USB_ALREADY_ATTACHED; a VUSB that is not attached goes."""
    group = store.row("USB_group", existing(store, "PUSB", pusb)["USB_group"])
    changes: list[Change] = [Update(cls="PUSB", ref=pusb, fields={"passthrough_enabled": False})]
    for ref in group["VUSBs"] if group is not None else ():
        vusb = existing(store, "VUSB", ref)
        if vusb["currently_attached"]:
            raise ApiError("USB_ALREADY_ATTACHED", pusb, vusb["VM"])
        changes.append(Delete(cls="VUSB", ref=ref))
    return changes


# ---- devices of VMs


@operation("VUSB.create")
async def create(call: Call, vm: str, group: str, other_config: dict[str, str]) -> str:
    ref, uuid = new_row("VUSB")

    def decision(store: Store) -> list[Change]:
        row = existing(store, "VM", vm)
        features.require(store, "usb_passthrough", "USB_passthrough")
        if len(row["VUSBs"]) >= MOST:
            raise ApiError("TOO_MANY_VUSBS", MOST)
        if existing(store, "USB_group", group)["VUSBs"]:
            raise ApiError("USB_GROUP_CONFLICT", group)
        if row["ha_restart_priority"] == "restart":
            raise ApiError("OPERATION_NOT_ALLOWED", f"VM {vm} is restarted by HA, and the device is on one host only.")
        fields = {"uuid": uuid, "VM": vm, "USB_group": group, "other_config": other_config}
        made: list[Change] = [Create(cls="VUSB", ref=ref, fields=fields)]
        with_it = Update(cls="VM", ref=vm, fields={"VUSBs": [*row["VUSBs"], ref]})  # as the relation will have it
        allowed = [*published(store, "VUSB", ref, made), *published(store, "VM", vm, [*made, with_it])]
        return [*made, *allowed]

    await _change(call, "VM", vm, decision)
    return ref


@operation("VUSB.destroy")
async def destroy(call: Call, self: str) -> None:
    def decision(store: Store) -> list[Change]:
        row = existing(store, "VUSB", self)
        if row["currently_attached"]:
            uuid = store.get("VM", row["VM"], "uuid")
            raise ApiError("OPERATION_NOT_ALLOWED", f"VUSB '{row['uuid']}' still attached to '{uuid}'")
        gone = Delete(cls="VUSB", ref=self)
        vm = store.row("VM", row["VM"])
        if vm is None:
            return [gone]
        without = Update(cls="VM", ref=row["VM"], fields={"VUSBs": [ref for ref in vm["VUSBs"] if ref != self]})
        return [gone, *published(store, "VM", row["VM"], [gone, without])]

    await _change(call, "VUSB", self, decision)


@operation("VUSB.unplug", built=False)
def unplug(call: Call, self: str) -> None:
    """None is ever plugged."""
    refusal = CHECKS["VUSB"](call.store, self, "unplug")
    if refusal is not None:
        raise refusal
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
